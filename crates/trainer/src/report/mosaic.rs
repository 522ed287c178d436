//! The pictures of a map: one sheet of thumbnails, shown where their points lie.

use super::html::escape;
use super::model::{Map, MapImage, Picture};
use super::page::clip;
use super::pictures::{Sheet, sheet};

/// Cells across; a cell shows at most one picture, so that none hides another.
const ACROSS: usize = 24;
/// Cells up, whatever the shape of the map.
const UP: [usize; 2] = [8, 18];

impl Map {
    /// The points whose pictures a page can show: for each cell of a grid over the map (t-SNE's where there is one), the point nearest to its
    /// middle. At most 432.
    pub fn picks(&self) -> Vec<usize> {
        Grid::of(self, |_| true).cells.into_iter().map(|(point, _)| point).collect()
    }

    /// The places that pictures are shown at.
    fn places(&self) -> Vec<[f32; 2]> {
        match self.tsne.len() == self.points.len() {
            true => self.tsne.clone(),
            false => self.points.iter().map(|point| [point.x, point.y]).collect(),
        }
    }
}

/// Cells over a map, and the point of each.
struct Grid {
    rows: usize,
    /// (point, [column, row from the top]), from the top.
    cells: Vec<(usize, [usize; 2])>,
}

impl Grid {
    fn of(map: &Map, shown: impl Fn(usize) -> bool) -> Self {
        let places = map.places();
        let finite = || places.iter().enumerate().filter(|(_, place)| place.iter().all(|v| v.is_finite()));
        let range = |axis: usize| {
            let values = finite().map(|(_, place)| f64::from(place[axis]));
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
        };
        let (x, y) = (range(0), range(1));
        let (wide, high) = ((x[1] - x[0]).max(f64::MIN_POSITIVE), (y[1] - y[0]).max(f64::MIN_POSITIVE));
        let rows = ((ACROSS as f64 * high / wide).round() as usize).clamp(UP[0], UP[1]);
        // In cells: across to the right, and down from the top.
        let at = |place: &[f32; 2]| {
            let across = (f64::from(place[0]) - x[0]) / wide * (ACROSS as f64 - 1e-9);
            let down = (y[1] - f64::from(place[1])) / high * (rows as f64 - 1e-9);
            [across, down]
        };
        let mut best: Vec<Option<(f64, usize)>> = vec![None; ACROSS * rows];
        for (point, place) in finite().filter(|(point, _)| shown(*point)) {
            let at = at(place);
            let cell = at.map(|v| (v.max(0.0) as usize).min(ACROSS.max(rows) - 1));
            let off = at.iter().zip(cell).map(|(v, cell)| (v - cell as f64 - 0.5).powi(2)).sum::<f64>();
            let Some(known) = best.get_mut(cell[1] * ACROSS + cell[0]) else { continue };
            if known.is_none_or(|(other, _)| off < other) {
                *known = Some((off, point));
            }
        }
        let cell = |(i, known): (usize, Option<(f64, usize)>)| Some((known?.1, [i % ACROSS, i / ACROSS]));
        Self { rows, cells: best.into_iter().enumerate().filter_map(cell).collect() }
    }
}

/// The pictures of a map, ready to be shown.
pub(super) struct Mosaic<'a> {
    map: &'a Map,
    sheet: Sheet,
}

impl<'a> Mosaic<'a> {
    /// `None` where the map has no pictures.
    pub(super) fn of(map: &'a Map) -> Option<Self> {
        let pictures: Vec<&Picture> = map.images.iter().map(|image| &image.picture).collect();
        Some(Self { map, sheet: sheet(&pictures)? })
    }

    /// The rule that all tiles share.
    pub(super) fn css(&self) -> String {
        let Sheet { uri, columns, rows, .. } = &self.sheet;
        format!(".tile {{ background-image: url({uri}); background-size: {}% {}%; }}\n", columns * 100, rows * 100)
    }

    /// The class and the style of picture `i`.
    fn tile(&self, i: usize) -> (&'static str, String) {
        let Sheet { columns, rows, small, .. } = self.sheet;
        let percent = |at: usize, of: usize| 100.0 * at as f64 / (of.max(2) - 1) as f64;
        let (x, y) = (percent(i % columns, columns), percent(i / columns, rows));
        (if small { "tile px" } else { "tile" }, format!("background-position:{x:.2}% {y:.2}%"))
    }

    /// What the pointer shows over a plane: `at` says where a point is, in percent from the left and from the top.
    pub(super) fn spots(&self, at: impl Fn(usize) -> Option<[f64; 2]>, name: impl Fn(&MapImage) -> String) -> String {
        let spot = |(i, image): (usize, &MapImage)| {
            let [x, y] = at(image.point)?;
            let (class, style) = self.tile(i);
            let title = escape(&name(image));
            Some(format!(
                "<i style=\"left:{x:.1}%;top:{y:.1}%\" title=\"{title}\"><em class=\"{class}\" style=\"{style}\"></em></i>"
            ))
        };
        let spots: String = self.map.images.iter().enumerate().filter_map(spot).collect();
        format!("<div class=\"spots\" aria-hidden=\"true\">{spots}</div>")
    }

    /// The pictures at their cells; `class` is the class of a picture's color.
    pub(super) fn html(&self, class: impl Fn(&MapImage) -> String, name: impl Fn(&MapImage) -> String) -> String {
        let mut of_point = std::collections::BTreeMap::new();
        self.map.images.iter().enumerate().for_each(|(i, image)| {
            of_point.entry(image.point).or_insert(i);
        });
        let grid = Grid::of(self.map, |point| of_point.contains_key(&point));
        let mut out = format!(
            "<figure class=\"images\"><div class=\"mosaic\" role=\"img\" aria-label=\"{} images at their places on the map\" \
             style=\"aspect-ratio:{ACROSS}/{}\">",
            grid.cells.len(),
            grid.rows
        );
        for (point, [column, row]) in &grid.cells {
            let Some(&i) = of_point.get(point) else { continue };
            let (image, (tile, style)) = (&self.map.images[i], self.tile(i));
            out += &format!(
                "<i class=\"of {tile} {}\" style=\"left:{:.2}%;top:{:.2}%;{style}\" title=\"{}\"></i>",
                class(image),
                100.0 * *column as f64 / ACROSS as f64,
                100.0 * *row as f64 / grid.rows as f64,
                escape(&clip(&name(image), 160)),
            );
        }
        out + "</div><figcaption>The images themselves, each moved to the middle of the nearest cell; where several share one, one is shown. \
               Point at an image to see it larger, and its name.</figcaption></figure>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::MapPoint;

    fn map(places: &[[f32; 2]]) -> Map {
        let point = |[x, y]: &[f32; 2]| MapPoint { x: *x, y: *y, label: None };
        Map { points: places.iter().map(point).collect(), ..Map::default() }
    }

    /// One point a cell, the one nearest to its middle; the corners are inside.
    #[test]
    fn a_cell_shows_the_point_nearest_to_its_middle() {
        let corners = [[0.0, 0.0], [24.0, 0.0], [0.0, 12.0], [24.0, 12.0]];
        let rivals = [[5.9, 6.1], [5.4, 6.4], [f32::NAN, 6.0]];
        let map = map(&[&corners[..], &rivals[..]].concat());
        let grid = Grid::of(&map, |_| true);
        assert_eq!(grid.rows, 12);
        assert_eq!(grid.cells, [(2, [0, 0]), (3, [23, 0]), (5, [5, 5]), (0, [0, 11]), (1, [23, 11])]);
        assert_eq!(map.picks(), [2, 3, 5, 0, 1]);
        // Without the nearer one the other is shown.
        assert!(Grid::of(&map, |point| point != 5).cells.contains(&(4, [5, 5])));
    }

    #[test]
    fn odd_maps_have_few_picks_and_no_panic() {
        assert!(map(&[]).picks().is_empty() && map(&[[f32::INFINITY, 0.0]]).picks().is_empty());
        assert_eq!(map(&[[1.0, 1.0]; 50]).picks().len(), 1);
        assert_eq!(map(&[[0.0, 0.0], [1.0, 0.0]]).picks().len(), 2);
        let many: Vec<[f32; 2]> = (0..9000).map(|i| [(i % 100) as f32, (i / 100) as f32 * 3.0]).collect();
        let picks = map(&many).picks();
        assert_eq!(picks.len(), 24 * 18);
        // t-SNE's places count where there are any.
        let turned = Map { tsne: vec![[0.0, 0.0]; 9000], ..map(&many) };
        assert_eq!(turned.picks().len(), 1);
    }
}

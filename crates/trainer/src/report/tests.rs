//! The page as a whole.

use super::model::{
    Map, MapImage, MapPoint, Neighbor, Note, NoteLevel, Picture, Query, ReportData, Series, SeriesKind, Status,
    Summary, ViewRow,
};
use super::sample::{Noise, running};
use super::{Gallery, gallery, render, write};

const SECTIONS: [&str; 7] = ["curves", "health", "views", "neighbors", "map", "run", "recipe"];

fn sections(page: &str) -> Vec<&'static str> {
    SECTIONS.into_iter().filter(|id| page.contains(&format!("<section id=\"{id}\">"))).collect()
}

/// Every tag of the page closes in order: what a browser would silently repair, and an unescaped text would break.
fn check_nesting(page: &str) {
    const VOID: [&str; 4] = ["meta", "img", "link", "!doctype"];
    let css = page.find("<style>").unwrap()..page.find("</style>").unwrap();
    let page = format!("{}{}", &page[..css.start + "<style>".len()], &page[css.end..]);
    let mut open: Vec<String> = Vec::new();
    let mut rest = page.as_str();
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        let name: String = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed));
        } else if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

/// What must hold of any page.
fn checked(data: &ReportData) -> String {
    check(render(data))
}

fn check(page: String) -> String {
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    // Without the pictures' bytes, which may spell anything.
    let page_without = page.replace("url(data:image/", "");
    let mut parts = page_without.split("base64,");
    let mut text = parts.next().unwrap().to_owned();
    parts.for_each(|part| text += part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+/=".contains(c)));
    for word in ["http://", "https://", "<script", "url(", "@import", "src=\"//", "NaN", "inf%", "javascript:"] {
        assert!(!text.contains(word), "{word} in the page");
    }
    for attribute in ["src=\"", "href=\""] {
        for found in page.split(attribute).skip(1) {
            assert!(
                found.starts_with("data:") || found.starts_with('#'),
                "{attribute}{}",
                &found[..found.len().min(40)]
            );
        }
    }
    check_nesting(&page);
    page
}

#[test]
fn a_full_report_has_all_its_parts() {
    let page = checked(&running());
    assert_eq!(sections(&page), SECTIONS);
    for text in [
        "<title>simclr-quickstart-1 · Diptych</title>",
        "<b>running</b><span>step 3,000 of 4,000</span>",
        "aria-valuenow=\"75\"",
        "<h2>20-NN accuracy</h2><p class=\"number\">78.3 %</p><p class=\"note\">best of the run 79.1 %</p>",
        "random backbone</th><td><i style=\"width:36.1%\"></i></td><td>36.1 %</td>",
        "raw pixels</th><td><i style=\"width:24.2%\"></i></td>",
        "Linear probe accuracy",
        "<h3>Loss</h3>",
        "<h3>Invariance</h3>",
        "<h3>Learning rate</h3>",
        "1/√d, spread evenly <b>0.08839</b>",
        "telling no image from another <b>5.541</b>",
        "Effective rank of the embeddings",
        "<s class=\"c1\"></s>different images",
        "How many steps ago the oldest entries were made",
        "Images skipped",
        "<b>[optim]</b>",
        "<u>lr </u>= 0.4",
        "neighbors have the right class",
        "alt=\"test image test/00000.png, disk\"",
        "about 1 min 24 s left",
        "AMD EPYC",
        "step 3,000 · epoch 24",
        "Scatter plot of 2,000 embeddings on two principal components",
        "Scatter plot of 2,000 embeddings by t-SNE",
        "images at their places on the map\"",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // 9 images with 2 views each, 8 test images with 8 neighbors each.
    assert_eq!(page.matches("<img ").count(), 9 * 3 + 8 * 9);
    assert_eq!(page.matches("<img ").count(), page.matches(" alt=\"").count());
    // Each picture of the map twice under the pointer and once at its place, all from one sheet.
    let pictures = running().map.unwrap().images.len();
    assert!(pictures > 100);
    assert_eq!(page.matches("class=\"tile px\"").count(), 2 * pictures);
    assert_eq!(page.matches("class=\"of tile px").count(), pictures);
    assert_eq!(page.matches("background-image").count(), 1);
}

/// The page of embedded images has the same parts without a run around them.
#[test]
fn embedded_images_have_a_page_of_their_own() {
    let run = running();
    let page = check(gallery(&Gallery {
        title: "shapes <b> as run-1 sees it".into(),
        cards: vec![("Images".into(), "2,000".into(), String::new())],
        facts: vec![("weights".into(), "run-1".into())],
        class_names: run.class_names,
        neighbors: [run.neighbors.clone(), run.neighbors.clone(), run.neighbors].concat(),
        map: run.map,
    }));
    assert_eq!(sections(&page), ["neighbors", "map", "run"]);
    assert!(page.contains("shapes &lt;b&gt; as run-1") && page.contains("<p class=\"number\">2,000</p></div>"));
    assert_eq!(page.matches("<div class=\"query\">").count(), 24);
    let empty = check(gallery(&Gallery::default()));
    assert_eq!(sections(&empty), [""; 0]);
}

#[test]
fn a_collapse_is_marked_where_it_began() {
    let mut data = running();
    assert!(!checked(&data).contains("collapse began"));
    data.stuck_since = Some(600);
    assert_eq!(checked(&data).matches("stuck since <b>step 600</b>").count(), 1, "in the chart of the loss");
    data.collapsed_since = Some(1200);
    let page = checked(&data);
    assert_eq!(page.matches("collapse began <b>step 1,200</b>").count(), 6, "loss and five charts of health");
    assert!(page.contains("<path class=\"collapse\" d=\"M400 0V1000\"/>"));
    assert!(page.contains("card warn\"><h2>Embedding std"));
}

#[test]
fn an_empty_report_is_a_page_without_sections() {
    let page = checked(&ReportData::default());
    assert_eq!(sections(&page), [""; 0]);
    assert!(page.contains("<h1>Run</h1>") && !page.contains("<nav") && !page.contains("class=\"card"));
}

#[test]
fn without_labels_nothing_speaks_of_classes() {
    let mut data = running();
    data.class_names.clear();
    data.summary = Summary { alignment: Some(0.3), uniformity: Some(-3.1), ..Summary::default() };
    data.series.retain(|series| series.kind != SeriesKind::Accuracy);
    for query in &mut data.neighbors {
        query.label = None;
        query.neighbors.iter_mut().for_each(|neighbor| neighbor.label = None);
    }
    data.map.as_mut().unwrap().points.iter_mut().for_each(|point| point.label = None);
    let page = checked(&data);
    assert_eq!(sections(&page), SECTIONS);
    for word in ["NN accuracy", "Accuracy on", "right class", "✓ marks", "class=\"classes\"", "class=\"right\""] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("The data has no labels") && page.contains("−3.100"));
}

#[test]
fn hidden_images_never_enter_the_page() {
    let mut data = running();
    data.images_hidden = true;
    let page = checked(&data);
    assert!(!page.contains("<img") && !page.contains("data:image") && !page.contains("train/00000"));
    assert_eq!(page.matches("no picture of the data").count(), 2);
    assert_eq!(sections(&page), SECTIONS);
}

/// Each text field of the data, one by one, with text that would break out of any place it could stand in.
#[test]
fn every_text_is_escaped() {
    let evil = || "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;</style></svg>".to_owned();
    let mut data = running();
    for text in [&mut data.title, &mut data.method, &mut data.paper, &mut data.written, &mut data.recipe] {
        *text = evil();
    }
    data.status = Status::Stopped { step: 1, total: 2, reason: evil() };
    data.class_names.iter_mut().for_each(|name| *name = evil());
    data.views.iter_mut().for_each(|row| row.name = evil());
    data.neighbors.iter_mut().for_each(|query| query.name = evil());
    data.map.iter_mut().flat_map(|map| &mut map.images).for_each(|image| image.name = evil());
    data.notes.push(Note::new(NoteLevel::Warning, evil()));
    data.facts.push((evil(), evil()));
    data.machine.push((evil(), evil()));
    for series in &mut data.series {
        (series.name, series.unit) = (evil(), evil());
    }
    for recipe in [evil(), format!("[{}]", evil()), format!("# {}", evil()), format!("{} = {}", evil(), evil())] {
        data.recipe = recipe;
        let page = checked(&data);
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(!page.contains("<img src=x"));
    }
}

#[test]
fn odd_values_draw_and_never_panic() {
    let kinds = [
        SeriesKind::Loss,
        SeriesKind::LossPart,
        SeriesKind::LearningRate,
        SeriesKind::Accuracy,
        SeriesKind::EmbeddingStd,
        SeriesKind::Geometry,
        SeriesKind::Cosine,
        SeriesKind::EmbeddingRank,
        SeriesKind::EmbeddingUniformity,
        SeriesKind::EmbeddingAlignment,
        SeriesKind::Monitor,
        SeriesKind::Speed,
        SeriesKind::DataWait,
    ];
    let odd: [Vec<(u64, f64)>; 8] = [
        vec![],
        vec![(7, 0.5)],
        vec![(0, f64::NAN)],
        vec![(1, f64::NAN), (2, 1.0), (3, f64::INFINITY), (4, -2.0)],
        vec![(0, 0.0), (u64::MAX, 1e300), (u64::MAX, -1e300)],
        vec![(5, 1e-310), (5, 1e-310)],
        (0..5000).map(|i| (i, if i == 9 { 1e30 } else { 1.0 })).collect(),
        (0..200).map(|i| (i, f64::NAN)).collect(),
    ];
    for points in &odd {
        let series = kinds.map(|kind| Series::new(kind, "a curve", points.clone())).to_vec();
        let nan = Some(f64::NAN);
        let data = ReportData {
            series,
            embedding_dim: Some(0),
            embedding_rows: Some(0),
            trivial_loss: Some(f64::NAN),
            collapsed_since: Some(u64::MAX),
            steps_per_epoch: Some(0),
            summary: Summary {
                knn: nan,
                raw_knn: Some(f64::INFINITY),
                loss: nan,
                elapsed_seconds: nan,
                ..Summary::default()
            },
            views: vec![ViewRow { views: vec![Picture::new(3, 3, vec![1])], ..ViewRow::default() }, ViewRow::default()],
            neighbors: vec![Query {
                neighbors: vec![Neighbor { similarity: f32::NAN, ..Neighbor::default() }],
                ..Query::default()
            }],
            map: Some(Map {
                points: vec![
                    MapPoint { x: 1.0, y: 2.0, label: Some(u32::MAX) },
                    MapPoint { x: f32::NAN, ..MapPoint::default() },
                ],
                tsne: vec![[f32::INFINITY, 0.0]; 2],
                images: vec![MapImage { point: 7, ..MapImage::default() }],
                ..Map::default()
            }),
            ..ReportData::default()
        };
        let page = checked(&data);
        let drawn = points.iter().any(|point| point.1.is_finite());
        assert_eq!(page.matches("<figure class=\"chart\">").count(), if drawn { 13 } else { 0 }, "{points:?}");
        assert!(!page.contains("class=\"card"));
        let clamped = points.len() == 5000;
        assert_eq!(page.matches("1 value outside the picture").count(), if clamped { 13 } else { 0 });
    }
}

/// Far more of everything than a run gives, of the least compressible kind.
#[test]
fn the_largest_report_stays_small() {
    let mut noise = Noise(3);
    let mut static_picture =
        |side: usize| Picture::new(side, side, (0..side * side * 3).map(|_| (noise.uniform() * 256.0) as u8).collect());
    let picture = static_picture(192);
    let mut data = running();
    let long = "x".repeat(5000);
    data.title = long.clone();
    data.recipe = "key = \"value\"\n".repeat(100_000);
    data.class_names = (0..1000).map(|i| format!("{i}{long}")).collect();
    let row = ViewRow { name: long.clone(), original: Some(picture.clone()), views: vec![picture.clone(); 12] };
    data.views = vec![row; 40];
    let neighbor = Neighbor { image: picture.clone(), label: Some(999), similarity: 0.5 };
    let query = Query { name: long.clone(), image: picture, label: Some(3), neighbors: vec![neighbor; 20] };
    data.neighbors = vec![query; 30];
    data.notes = vec![Note::new(NoteLevel::Info, long.clone()); 200];
    data.facts = vec![(long.clone(), long.clone()); 200];
    let points: Vec<(u64, f64)> = (0..30_000).map(|i| (i * 1000, (i % 97) as f64)).collect();
    for kind in [SeriesKind::Loss, SeriesKind::LossPart, SeriesKind::Geometry, SeriesKind::Accuracy] {
        data.series.extend((0..15).map(|_| Series::new(kind, "a curve", points.clone())));
    }
    let point = |i: u32| MapPoint { x: (i % 313) as f32, y: (i % 211) as f32, label: Some(i % 1000) };
    let mut map = Map { points: (0..100_000).map(point).collect(), ..Map::default() };
    map.tsne = map.points.iter().map(|point| [point.y, point.x]).collect();
    let shown = data.neighbors[0].image.clone();
    let image = |point| MapImage { point, name: long.clone(), picture: shown.clone() };
    map.images = map.picks().into_iter().map(image).collect();
    data.map = Some(map);
    let page = checked(&data);
    assert_eq!(sections(&page), SECTIONS);
    assert!(page.contains("990 classes") || page.contains("other classes"));
}

#[test]
fn a_written_report_replaces_the_old_one_whole() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("report.html");
    write(&path, &ReportData::default())?;
    write(&path, &running())?;
    assert_eq!(std::fs::read_to_string(&path)?, render(&running()));
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
    let error = format!("{:#}", write(&dir.path().join("none/report.html"), &running()).unwrap_err());
    assert!(error.contains("none/report.html: can't be written"), "{error}");
    Ok(())
}

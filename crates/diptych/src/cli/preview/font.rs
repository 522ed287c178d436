//! Letters of 5 x 7 pixels, and two rows below the line, drawn for this project: enough to say what a picture shows, without a font file.

use diptych::augment::Image;

/// Columns and rows of a letter; few letters use the last two rows, which lie below the line.
const LETTER: (usize, usize) = (5, 9);

/// The rows of each letter from top to bottom; `#` is ink.
const LETTERS: [(char, &str); 48] = [
    (' ', "..... ..... ..... ..... ..... ..... ....."),
    ('0', ".###. #...# #..## #.#.# ##..# #...# .###."),
    ('1', "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###."),
    ('2', ".###. #...# ....# ...#. ..#.. .#... #####"),
    ('3', ".###. #...# ....# ..##. ....# #...# .###."),
    ('4', "...#. ..##. .#.#. #..#. ##### ...#. ...#."),
    ('5', "##### #.... ####. ....# ....# #...# .###."),
    ('6', "..##. .#... #.... ####. #...# #...# .###."),
    ('7', "##### ....# ...#. ..#.. ..#.. .#... .#..."),
    ('8', ".###. #...# #...# .###. #...# #...# .###."),
    ('9', ".###. #...# #...# .#### ....# ...#. .##.."),
    ('a', "..... ..... .###. ....# .#### #...# .####"),
    ('b', "#.... #.... ####. #...# #...# #...# ####."),
    ('c', "..... ..... .###. #.... #.... #.... .###."),
    ('d', "....# ....# .#### #...# #...# #...# .####"),
    ('e', "..... ..... .###. #...# ##### #.... .###."),
    ('f', "..##. .#... ####. .#... .#... .#... .#..."),
    ('g', "..... ..... .#### #...# #...# #...# .#### ....# .###."),
    ('h', "#.... #.... ####. #...# #...# #...# #...#"),
    ('i', "..#.. ..... .##.. ..#.. ..#.. ..#.. .###."),
    ('j', "...#. ..... ..##. ...#. ...#. ...#. ...#. #..#. .##.."),
    ('k', "#.... #.... #..#. #.#.. ##... #.#.. #..#."),
    ('l', ".##.. ..#.. ..#.. ..#.. ..#.. ..#.. .###."),
    ('m', "..... ..... ##.#. #.#.# #.#.# #.#.# #.#.#"),
    ('n', "..... ..... ####. #...# #...# #...# #...#"),
    ('o', "..... ..... .###. #...# #...# #...# .###."),
    ('p', "..... ..... ####. #...# #...# #...# ####. #.... #...."),
    ('q', "..... ..... .#### #...# #...# #...# .#### ....# ....#"),
    ('r', "..... ..... #.##. ##..# #.... #.... #...."),
    ('s', "..... ..... .#### #.... .###. ....# ####."),
    ('t', ".#... .#... ####. .#... .#... .#..# ..##."),
    ('u', "..... ..... #...# #...# #...# #...# .####"),
    ('v', "..... ..... #...# #...# #...# .#.#. ..#.."),
    ('w', "..... ..... #...# #...# #.#.# #.#.# .#.#."),
    ('x', "..... ..... #...# .#.#. ..#.. .#.#. #...#"),
    ('y', "..... ..... #...# #...# #...# #...# .#### ....# .###."),
    ('z', "..... ..... ##### ...#. ..#.. .#... #####"),
    ('.', "..... ..... ..... ..... ..... .##.. .##.."),
    (',', "..... ..... ..... ..... ..... .##.. .##.. ..#.. .#..."),
    (':', "..... .##.. .##.. ..... .##.. .##.. ....."),
    ('-', "..... ..... ..... .###. ..... ..... ....."),
    ('+', "..... ..#.. ..#.. ##### ..#.. ..#.. ....."),
    ('/', "....# ....# ...#. ..#.. .#... #.... #...."),
    ('_', "..... ..... ..... ..... ..... ..... #####"),
    ('=', "..... ..... ##### ..... ##### ..... ....."),
    ('%', "##..# ##..# ...#. ..#.. .#... #..## #..##"),
    ('(', "...#. ..#.. .#... .#... .#... ..#.. ...#."),
    (')', ".#... ..#.. ...#. ...#. ...#. ..#.. .#..."),
];

/// What stands for a character that has no letter.
const UNKNOWN: &str = "##### #...# #...# #...# #...# #...# #####";

/// Columns of a line of text with letters of `scale` pixels a dot.
pub(crate) fn width(text: &str, scale: usize) -> usize {
    (text.chars().count() * (LETTER.0 + 1)).saturating_sub(1) * scale
}

/// Rows of a line of text.
pub(crate) fn height(scale: usize) -> usize {
    LETTER.1 * scale
}

/// Writes `text` into `image` with its upper left corner at (`x`, `y`), in small letters only; what lies outside is cut off.
pub(crate) fn write(image: &mut Image, text: &str, x: usize, y: usize, scale: usize, ink: [u8; 3]) {
    let dot = Image::filled(scale, scale, ink);
    for (i, c) in text.chars().enumerate() {
        let c = c.to_ascii_lowercase();
        let rows = LETTERS.iter().find(|(letter, _)| *letter == c).map_or(UNKNOWN, |(_, rows)| rows);
        let left = x + i * (LETTER.0 + 1) * scale;
        for (row, dots) in rows.split(' ').enumerate() {
            for (column, _) in dots.match_indices('#') {
                image.paste(&dot, left + column * scale, y + row * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_whole_and_like_no_other() {
        for (i, (letter, rows)) in LETTERS.iter().enumerate() {
            let sizes: Vec<usize> = rows.split(' ').map(str::len).collect();
            assert!(sizes == [LETTER.0; LETTER.1] || sizes == [LETTER.0; LETTER.1 - 2], "{letter}");
            assert!(rows.chars().all(|c| "#. ".contains(c)), "{letter}");
            for (other, others) in &LETTERS[i + 1..] {
                assert!(letter != other && rows != others, "{letter} and {other}");
            }
        }
    }

    #[test]
    fn text_fills_the_width_it_says() {
        let mut image = Image::filled(60, 20, [255; 3]);
        write(&mut image, "H7%", 3, 2, 2, [0; 3]);
        let inked = |x: usize| (0..20).any(|y| image.pixel(x, y) == Some([0; 3]));
        let columns: Vec<usize> = (0..60).filter(|&x| inked(x)).collect();
        assert_eq!((columns.first(), columns.last()), (Some(&3), Some(&(3 + width("h7%", 2) - 1))));
        assert_eq!(width("", 2), 0);
    }
}

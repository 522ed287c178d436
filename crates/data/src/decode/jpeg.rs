//! What the markers of a JPEG file tell before it is decoded: whether it is whole, how it is turned, and whether its scans can be read.

use image::metadata::Orientation;

/// The end of the picture.
const END: u8 = 0xd9;
/// The start of a scan.
const SCAN: u8 = 0xda;
/// The application segment that holds EXIF.
const APP1: u8 = 0xe1;

/// What [`inspect`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How the picture is to be turned.
    pub(super) orientation: Orientation,
}

/// Walks over the markers of a JPEG file.
///
/// # Errors
/// If the file ends before its picture, or is of a kind that would be decoded wrongly, as a sentence.
pub(super) fn inspect(bytes: &[u8]) -> Result<Found, String> {
    let cut_off = || "the JPEG data ends before the picture does (truncated file)".to_owned();
    let mut found = Found { orientation: Orientation::NoTransforms };
    let mut frame = Frame::default();
    let mut scans = false;
    let mut at = 2;
    loop {
        // To the next marker: 0xff and a byte that is neither a stuffed zero, nor fill, nor a restart. Segments are
        // jumped over by their length (they may hold a whole thumbnail); the entropy-coded data after a scan's header hold no other marker.
        let rest = bytes.get(at..).ok_or_else(cut_off)?;
        at += rest.iter().position(|&byte| byte == 0xff).ok_or_else(cut_off)? + 1;
        match *bytes.get(at).ok_or_else(cut_off)? {
            END => return Ok(found),
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            0xff => {}
            marker => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(cut_off)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                // What is cut off here is found in the next round.
                let segment = bytes.get(at + 3..at + 1 + length).unwrap_or_default();
                at += 1 + length;
                match marker {
                    APP1 => found.orientation = orientation(segment).unwrap_or(found.orientation),
                    0xc0 | 0xc1 => frame = Frame::read(segment),
                    SCAN if !scans => {
                        scans = true;
                        frame.check(segment)?;
                        // Nearly every file ends with its end marker. Looking at the data would cost 3 % of decoding them.
                        if bytes.len() > at + 1 && bytes.ends_with(&[0xff, END]) {
                            return Ok(found);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether these bytes are a whole JPEG file that is shown as it is stored, without turning or mirroring.
pub(crate) fn upright_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
        && inspect(bytes).is_ok_and(|found| found.orientation == Orientation::NoTransforms)
}

/// The orientation that an EXIF segment asks for.
fn orientation(segment: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(segment.strip_prefix(b"Exif\0\0")?)
}

/// What the header of a sequential picture says of its components; nothing for a progressive one.
#[derive(Default)]
struct Frame {
    components: u8,
    /// Whether one of them has more samples than another.
    subsampled: bool,
}

impl Frame {
    fn read(segment: &[u8]) -> Self {
        let samplings = || segment.iter().skip(7).step_by(3);
        let subsampled = samplings().any(|sampling| Some(sampling) != samplings().next());
        Self { components: segment.get(5).copied().unwrap_or(0), subsampled }
    }

    /// Refuses a first scan that holds some of the components only, where they are of different sizes: zune-jpeg 0.5.15 makes color noise of it,
    /// and says nothing.
    fn check(&self, scan: &[u8]) -> Result<(), String> {
        let apart = self.subsampled && scan.first().is_some_and(|components| *components < self.components);
        if apart && cfg!(not(feature = "turbo")) {
            return Err("its colors lie in scans of their own, which is rare in a JPEG that is not progressive and cannot be read: save it \
                        again, as progressive, or with one scan"
                .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)).unwrap()
    }

    #[test]
    fn turned_pictures_are_told_from_upright_ones() {
        let orientation = |name| inspect(&file(name)).unwrap().orientation;
        assert_eq!(orientation("rgb.jpg"), Orientation::NoTransforms);
        assert_eq!(orientation("orientation_3.jpg"), Orientation::Rotate180);
        assert_eq!(orientation("orientation_6.jpg"), Orientation::Rotate90);
        assert_eq!(orientation("orientation_8.jpg"), Orientation::Rotate270);
        assert!(upright_jpeg(&file("rgb.jpg")) && upright_jpeg(&file("progressive.jpg")));
        assert!(!upright_jpeg(&file("orientation_6.jpg")) && !upright_jpeg(&file("rgb.png")) && !upright_jpeg(&[]));
    }

    #[test]
    fn only_a_whole_file_is_whole() {
        for name in ["rgb.jpg", "progressive.jpg", "cmyk.jpg", "gray.jpg"] {
            let mut bytes = file(name);
            assert!(inspect(&bytes).is_ok());
            for end in 2..bytes.len() {
                assert!(inspect(&bytes[..end]).is_err(), "{name} cut at {end}");
            }
            bytes.extend(b"and more");
            assert!(inspect(&bytes).is_ok(), "{name} with something after it");
        }
    }

    #[test]
    fn lengths_that_lie_are_no_trouble() {
        for length in [[0, 0], [0, 1], [0xff, 0xff]] {
            let bytes = [&[0xff, 0xd8, 0xff, APP1][..], &length, b"Exif"].concat();
            assert!(inspect(&bytes).is_err());
        }
    }

    /// The components of a frame with these samplings, then a scan with `scanned` of them, then the end.
    fn sequential(samplings: &[u8], scanned: u8) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xc0, 0, 8 + 3 * samplings.len() as u8, 8, 0, 16, 0, 16];
        bytes.push(samplings.len() as u8);
        samplings.iter().enumerate().for_each(|(i, sampling)| bytes.extend([i as u8, *sampling, 0]));
        bytes.extend([0xff, SCAN, 0, 6 + 2 * scanned, scanned]);
        bytes.resize(bytes.len() + 2 * usize::from(scanned) + 3, 0);
        bytes.extend([1, 2, 3, 0xff, END]);
        bytes
    }

    #[test]
    fn subsampled_colors_in_scans_of_their_own_are_refused_where_they_are_read_wrongly() {
        assert!(inspect(&sequential(&[0x22, 0x11, 0x11], 3)).is_ok());
        assert!(inspect(&sequential(&[0x11, 0x11, 0x11], 1)).is_ok());
        assert!(inspect(&sequential(&[0x22], 1)).is_ok());
        assert_eq!(inspect(&sequential(&[0x22, 0x11, 0x11], 1)).is_ok(), cfg!(feature = "turbo"));
    }
}

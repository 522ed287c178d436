//! Tar files, good and bad, byte by byte.

use std::io::Write;

use super::*;
use crate::list::display;

/// A member with a header of this kind and size, whose sum is right.
fn member(name: &[u8], kind: u8, size: u64, body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(size);
    header.as_old_mut().linkflag = [kind];
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, body: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), b'0', body.len() as u64, body)
}

const END: [u8; 1024] = [0; 1024];

fn indexed(bytes: &[u8]) -> Result<Index, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    index(Path::new("x.tar"), file.as_file(), bytes.len() as u64).map_err(|error| error.to_string())
}

/// Names, places and labels of the images.
fn found(bytes: &[u8]) -> Vec<(String, u64, u32, Option<String>)> {
    let index = indexed(bytes).unwrap();
    let label = |label: u32| index.labels.get(label as usize).cloned();
    let row = |(i, row): (usize, &Row)| (display(index.names.get(i).unwrap()), row.start, row.len, label(row.label));
    index.rows.iter().enumerate().map(row).collect()
}

fn problem(parts: &[&[u8]]) -> String {
    let text = indexed(&parts.concat()).unwrap_err();
    assert!(text.contains("x.tar") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn samples_are_grouped_up_to_the_first_dot() {
    let tar = [
        file("a.b/1.left.PNG", b"xx"),
        file("a.b/1.cls", b" 7\n"),
        file("a.b/1.json", b"{\"label\": 8}"),
        file("2.json", b"{\"cls\": \"cat\", \"other\": [1]}"),
        file("2.jpeg", b"y"),
        file("3.jpg", b"z"),
        file("3.json", b"{}"),
        file("4.jpg", b"z"),
        file("4.cls", b"-1"),
        file("noending", b""),
    ]
    .concat();
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("a.b/1.left.PNG".to_owned(), 512, 2, some("7")),
        ("2.jpeg".to_owned(), 4608, 1, some("cat")),
        ("3.jpg".to_owned(), 5632, 1, None),
        ("4.jpg".to_owned(), 7680, 1, None),
    ];
    // With its end, without it, and without the last padding.
    for end in [&END[..], &END[..512], &[]] {
        assert_eq!(found(&[&tar, end].concat()), expected);
    }
    assert_eq!(indexed(&tar).unwrap().notes, ["passed over 1 other file"]);
    let unpadded = [&tar[..], &file("5.jpg", b"abc")[..515]].concat();
    assert_eq!(found(&unpadded).len(), 5);
}

#[test]
fn labels_that_are_none_are_counted() {
    let wide = vec![b'x'; 5000];
    let tar: Vec<u8> = (0..6)
        .flat_map(|i| {
            let label = [&b"\xff"[..], b"", b"two\nlines", &wide, b"{", b"{\"label\": 1.5}"][i];
            let ending = if i < 4 { "cls" } else { "json" };
            [file(&format!("{i}.jpg"), b"x"), file(&format!("{i}.{ending}"), label)].concat()
        })
        .collect();
    let index = indexed(&tar).unwrap();
    assert_eq!((index.rows.len(), index.labels.len(), &*index.notes[0]), (6, 0, "passed over 6 unreadable labels"));
}

#[test]
fn long_names_come_from_gnu_and_pax() {
    let long = format!("{}/x.jpg", "d".repeat(200));
    let gnu =
        [member(b"././@LongLink", b'L', long.len() as u64 + 1, format!("{long}\0").as_bytes()), file("short", b"1")]
            .concat();
    assert_eq!(found(&gnu)[0].0, long);
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let digits = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
        format!("{}{rest}", rest.len() + digits)
    };
    // The size of a pax header goes before the header's own, as for members beyond 8 GiB.
    let text = record("path", &long) + &record("size", "3") + &record("mtime", "1.5");
    let pax = [member(b"pax", b'x', text.len() as u64, text.as_bytes()), member(b"short", b'0', 0, b"abc")].concat();
    assert_eq!(found(&[pax, file("y.png", b"1")].concat()).len(), 2);
    let sparse = record("GNU.sparse.major", "1");
    let sparse = member(b"pax", b'x', sparse.len() as u64, sparse.as_bytes());
    let index = indexed(&[sparse, file("x.jpg", b"abc"), file("y.jpg", b"1")].concat()).unwrap();
    assert_eq!((index.rows.len(), &*index.notes[0]), (1, "passed over 1 sparse file"));
}

#[test]
fn sizes_that_lie_are_errors_that_name_the_member() {
    let good = file("a.jpg", b"abc");
    let huge = member(b"b.jpg", b'0', 1 << 40, b"");
    assert!(
        problem(&[&good, &huge, &END])
            .contains("the member b.jpg says it has 1099511627776 bytes, and the file has 1024 more")
    );
    let most = member(b"b.jpg", b'0', u64::MAX, b"");
    assert!(problem(&[&good, &most]).contains("the member b.jpg says it has 18446744073709551615 bytes"));
    let cut = &file("b.jpg", &[7; 600])[..1000];
    assert!(problem(&[&good, cut]).contains("the member b.jpg says it has 600 bytes, and the file has 488 more"));
    for kind in [b'L', b'x', b'g'] {
        assert!(
            problem(&[&good, &member(b"n", kind, 1 << 30, b"")])
                .contains("a long name or pax header has 1073741824 bytes")
        );
        assert!(problem(&[&good, &member(b"n", kind, 5000, b"")]).contains("ends in the middle of a long name"));
    }
    assert!(problem(&[&member(b"n", b'L', 5000, &[b'x'; 5000]), &good]).contains("a name has 5000 bytes"));
    let bad = b"9999 path=x\n";
    assert!(problem(&[&member(b"n", b'x', 12, bad), &good]).contains("a pax header is damaged"));
    // A link's size means nothing: no byte follows it.
    let links = [member(b"l.jpg", b'2', 1 << 40, b""), member(b"h.jpg", b'1', 999, b""), good.clone()].concat();
    assert_eq!(found(&links).len(), 1);
}

#[test]
fn what_is_no_tar_is_told_from_one() {
    assert!(problem(&[b"words"]).contains("the tar file ends in the middle of a header"));
    assert!(problem(&[&[b'x'; 2000]]).contains("it is no tar file"));
    assert!(problem(&[b"\x1f\x8b", &[b'x'; 2000]]).contains("it is compressed"));
    assert!(problem(&[b"\x28\xb5\x2f\xfd", &[b'x'; 2000]]).contains("unpack it once (zstd -d < x.tar > NEW.tar)"));
    assert!(
        problem(&[&file("a.jpg", b"abc"), &[b'x'; 512]])
            .contains("should be a header is none (at byte 1024, after the member a.jpg)")
    );
    assert!(problem(&[]).contains("no image found (the archive is empty)"));
    assert!(problem(&[&file("a.txt", b"abc"), &END]).contains("no image found (1 other file)"));
}

/// Any changes to a tar, with sums made right again, end in an error or in images that lie inside the file.
#[test]
fn any_tar_is_indexed_within_its_bounds() {
    let good = [
        member(b"././@LongLink", b'L', 9, b"long.jpg\0"),
        file("x", b"1"),
        member(b"p", b'x', 12, b"12 path=y.j\n"),
        file("y", b"2"),
        member(b"s.jpg", b'S', 3, b"abc"),
        file("z.jpg", &[1; 700]),
        file("z.cls", b"1"),
    ]
    .concat();
    let mut scratch = tempfile::NamedTempFile::new().unwrap();
    bolero::check!().with_iterations(3_000).with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(edits, cut)| {
        let mut bytes = good.clone();
        for &(at, value) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        for block in bytes.chunks_exact_mut(512) {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            // Bodies are not headers; a changed text is as good as any other.
            if block[148..154].iter().all(u8::is_ascii_digit) {
                block.copy_from_slice(header.as_bytes());
            }
        }
        bytes.truncate(usize::from(*cut).max(512));
        let size = bytes.len() as u64;
        scratch.as_file_mut().set_len(0).unwrap();
        std::io::Seek::rewind(scratch.as_file_mut()).unwrap();
        scratch.write_all(&bytes).unwrap();
        if let Ok(index) = index(Path::new("x.tar"), scratch.as_file(), size) {
            assert!(index.rows.iter().all(|row| row.start + u64::from(row.len) <= size));
            assert!(Index::from_bytes(&index.to_bytes(stamp(size)), stamp(size)).is_some());
        }
    });
}

fn stamp(size: u64) -> crate::shards::index::Stamp {
    crate::shards::index::Stamp { size, changed: [0, 0] }
}

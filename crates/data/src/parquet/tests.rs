//! Parquet files that lie, and large pages; files as pyarrow writes them are tested in `tests/data/shards.rs`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::metadata::{ColumnChunkMetaDataBuilder, ParquetMetaDataWriter};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;
use crate::shards::read;
use crate::shards::store::{self, Places};
use crate::source::Source;

struct Made {
    index: Index,
    shard: Source,
    values: Option<Source>,
}

/// The index of a file in a folder of its own.
fn made(folder: &Path, bytes: &[u8]) -> Result<Made, String> {
    let path = folder.join("x.parquet");
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = File::open(&path).unwrap();
    let places = Places::new(&path, store::stamp(&file.metadata().unwrap()), None);
    let mut values = Values::new(&places);
    let mut found = index(&path, &file, bytes.len() as u64, &mut values).map_err(|error| error.to_string())?;
    let (unpacked, values) = values.finish().unwrap();
    found.unpacked = unpacked;
    let open = |path: PathBuf| Source::new(path, true).unwrap();
    Ok(Made { index: found, shard: open(path.clone()), values: values.map(open) })
}

impl Made {
    fn bytes(&self, i: usize) -> Vec<u8> {
        read::image(&self.index, self.index.rows[i], &self.shard, self.values.as_ref()).unwrap()
    }
}

/// The bytes of "image" `i`: noise with some repetition, of its own length.
fn content(i: usize) -> Vec<u8> {
    let mut stream = diptych_random::Stream::keyed(5, &[i as u64]);
    let length = 1000 + (stream.next_u64() % 30_000) as usize;
    let mut bytes: Vec<u8> = (0..length).map(|_| stream.next_u64() as u8).collect();
    bytes[100..500].fill(i as u8);
    bytes
}

/// A file of `n` rows in groups, every fifth without an image.
fn written(n: usize, group: usize, properties: WriterProperties) -> Vec<u8> {
    let schema = "message m { optional group image { optional binary bytes; } required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for first in (0..n).step_by(group) {
        let rows: Vec<usize> = (first..n.min(first + group)).collect();
        let mut columns = writer.next_row_group().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        let levels: Vec<i16> = rows.iter().map(|i| if i % 5 == 4 { (i % 2) as i16 } else { 2 }).collect();
        let bytes: Vec<ByteArray> = rows.iter().filter(|i| *i % 5 != 4).map(|i| content(*i).into()).collect();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        let labels: Vec<i64> = rows.iter().map(|i| *i as i64 % 10).collect();
        column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn large_pages_are_entered_in_the_middle() {
    let base = || WriterProperties::builder().set_data_page_size_limit(1 << 20);
    let snappy = || base().set_compression(Compression::SNAPPY);
    for (what, properties) in [
        ("snappy", snappy().build()),
        ("snappy without a dictionary", snappy().set_dictionary_enabled(false).build()),
        (
            "snappy, second version",
            snappy().set_dictionary_enabled(false).set_writer_version(WriterVersion::PARQUET_1_0).build(),
        ),
        ("plain", base().set_dictionary_enabled(false).build()),
        ("zstd", base().set_compression(Compression::ZSTD(ZstdLevel::default())).build()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let made = made(folder.path(), &written(200, 120, properties)).unwrap();
        let expected: Vec<usize> = (0..200).filter(|i| i % 5 != 4).collect();
        assert_eq!(
            (made.index.rows.len(), &*made.index.notes[0]),
            (160, "passed over 40 rows without an image in the file"),
            "{what}"
        );
        for (row, &i) in expected.iter().enumerate().rev() {
            assert!(made.bytes(row) == content(i), "{what}: row {row}");
            assert_eq!(made.index.labels[made.index.rows[row].label as usize], (i % 10).to_string());
        }
        // What is read for one image is about as much as it has, not the page.
        let longest =
            made.index.segments.iter().filter(|segment| segment.storage == crate::shards::index::Storage::Snappy);
        assert!(longest.map(|segment| segment.stored).max().unwrap_or(0) < 80_000, "{what}");
    }
}

/// The same pages under another footer.
fn forged(
    edit: impl Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
    rows: impl Fn(i64) -> i64,
) -> Vec<u8> {
    let bytes = written(20, 10, WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut scratch = tempfile::tempfile().unwrap();
    scratch.write_all(&bytes).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&scratch).unwrap();
    let mut builder = metadata.clone().into_builder();
    let groups = builder.take_row_groups();
    for group in groups {
        let columns: Vec<_> =
            group.columns().iter().map(|column| edit(column.clone().into_builder()).build().unwrap()).collect();
        let count = rows(group.num_rows());
        builder = builder
            .add_row_group(group.into_builder().set_column_metadata(columns).set_num_rows(count).build().unwrap());
    }
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let mut out = bytes[..bytes.len() - 8 - footer].to_vec();
    let mut tail = Vec::new();
    ParquetMetaDataWriter::new(&mut tail, &builder.build()).finish().unwrap();
    out.extend(tail);
    out
}

#[test]
fn footers_that_lie_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(made(folder.path(), &forged(|column| column, |rows| rows)).unwrap().index.rows.len(), 16);
    type Edit = fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder;
    let same: Edit = |column| column;
    type Rows = fn(i64) -> i64;
    let cases: [(Edit, Rows, &str); 11] = [
        (same, |_| 1 << 40, "it says it has more than 16777216 rows"),
        (same, |_| i64::MAX / 4, "it says it has more than 16777216 rows"),
        (same, |_| -1, "or fewer than none"),
        (same, |_| 16_000_000, "column bytes: it ends before its rows do"),
        (same, |rows| rows + 1, "column bytes: it ends before its rows do"),
        (same, |rows| rows - 1, "its pages have more values than the row group has rows"),
        (|column| column.set_total_compressed_size(1 << 50), |rows| rows, "lies outside of the file"),
        (|column| column.set_total_compressed_size(-1), |rows| rows, "lies outside of the file"),
        (
            |column| column.set_data_page_offset(i64::MAX).set_dictionary_page_offset(None),
            |rows| rows,
            "lies outside of the file",
        ),
        (|column| column.set_data_page_offset(1).set_dictionary_page_offset(Some(1)), |rows| rows, "column bytes:"),
        (|column| column.set_file_path("/etc/passwd".into()), |rows| rows, "is in another file, which is not read"),
    ];
    for (i, (edit, rows, expected)) in cases.into_iter().enumerate() {
        let text = made(folder.path(), &forged(edit, rows)).map(drop).unwrap_err();
        assert!(text.contains(expected) && text.contains("x.parquet") && !text.contains('\n'), "{i}: {text}");
    }
}

#[test]
fn what_is_no_parquet_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |bytes: &[u8]| made(folder.path(), bytes).map(drop).unwrap_err();
    let good = forged(|column| column, |rows| rows);
    assert!(problem(b"").contains("too short"));
    assert!(problem(&[7; 100]).contains("it does not begin with PAR1"));
    assert!(problem(&good[..good.len() - 5]).contains("it ends before its footer"));
    assert!(problem(&[&good[..good.len() - 4], b"PARE"].concat()).contains("it is encrypted"));
    let length = good.len();
    assert!(
        problem(&[&good[..length - 8], &[0xff; 4], b"PAR1"].concat())
            .contains("its footer says that it is larger than the file")
    );
    assert!(problem(&[&good[..length - 8], &[9, 0, 0, 0], b"PAR1"].concat()).contains("its footer cannot be read"));
}

/// Any changes to pages and footer end in an error, or in ranges that lie inside the file.
#[test]
fn any_file_is_indexed_within_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<Vec<u8>> = ["default", "groups", "zstd", "second"]
        .map(|name| {
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/shards/{name}.parquet"))).unwrap()
        })
        .into();
    bolero::check!().with_iterations(1_500).with_type::<(u8, Vec<(u16, u8)>)>().for_each(|(which, edits)| {
        let mut bytes = files[usize::from(*which) % files.len()].clone();
        for &(at, value) in edits.iter().take(4) {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Ok(made) = made(folder.path(), &bytes) {
            let stamp = crate::shards::index::Stamp { size: bytes.len() as u64, changed: [0, 0] };
            assert!(Index::from_bytes(&made.index.to_bytes(stamp), stamp).is_some(), "what is made is sound");
            for row in &made.index.rows {
                let _ = read::image(&made.index, *row, &made.shard, made.values.as_ref());
            }
        }
    });
}

//! Pickles by hand, cut off, edited and hostile.

use super::*;

fn error(bytes: &[u8]) -> String {
    format!("{:#}", read(bytes).unwrap_err())
}

#[test]
fn protocols_0_to_5_give_the_same() {
    // pickle.dumps({"a": [1, -2, None, True, 1.5]}, protocol) for 0, 2, 4 and 5.
    let all: [&[u8]; 4] = [
        b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naNaI01\naF1.5\nas.",
        b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffN\x88G?\xf8\x00\x00\x00\x00\x00\x00es.",
        b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94](K\x01J\xfe\xff\xff\xffN\x88G?\xf8\x00\x00\x00\x00\x00\x00es.",
        b"\x80\x05\x95\x1e\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94](K\x01J\xfe\xff\xff\xffN\x88G?\xf8\x00\x00\x00\x00\x00\x00es.",
    ];
    for bytes in all {
        let (heap, length) = read(bytes).unwrap();
        assert_eq!(length, bytes.len());
        let list = heap.elements(heap.entry(heap.root(), "a").unwrap()).unwrap();
        let values: Vec<&Value> = list.iter().map(|id| heap.get(*id)).collect();
        assert_eq!(values, [&Value::Int(1), &Value::Int(-2), &Value::None, &Value::Bool(true), &Value::Float(1.5)]);
    }
}

/// A list that holds itself, and one value under two names.
#[test]
fn cycles_and_sharing_are_kept() {
    let (heap, _) = read(b"]q\x00h\x00a.").unwrap();
    assert_eq!(heap.elements(heap.root()), Some(&[heap.root()][..]));
    let (heap, _) = read(b"}q\x00(X\x01\x00\x00\x00a]q\x01X\x01\x00\x00\x00bh\x01u.").unwrap();
    assert_eq!(heap.entry(heap.root(), "a"), heap.entry(heap.root(), "b"));
}

#[test]
fn calls_are_named_and_not_made() {
    let (heap, _) = read(b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb.").unwrap();
    assert_eq!(heap.describe(heap.root()), "an object of argparse.Namespace");
    let (heap, _) = read(b"ccollections\nOrderedDict\n]]X\x01\x00\x00\x00aaK\x07aa\x85R.").unwrap();
    assert_eq!(heap.size(heap.entry(heap.root(), "a").unwrap()), Some(7));
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    for (bytes, name) in [
        (&b"cos\nsystem\nX\x04\x00\x00\x00true\x85R."[..], "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cposix\nsystem\nS'true'\no.", "posix.system"),
        (b"\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.", "builtins.exec"),
        (b"csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
        (b"csubprocess\nPopen\n)}\x92.", "subprocess.Popen"),
    ] {
        let text = error(bytes);
        assert!(text.contains(&format!("calls {name}")) && text.contains("nothing was run"), "{text}");
    }
    // A name alone does nothing.
    assert!(read(b"cos\nsystem\n.").is_ok());
}

#[test]
fn broken_programs_are_told() {
    for (bytes, part) in [
        (&b""[..], "cut off"),
        (b"]", "cut off"),
        (b"X\xff\xff\xff\xffab.", "cut off"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "cut off"),
        (b"cos", "cut off"),
        (b".", "not there"),
        (b"(0.", "not there"),
        (b"]u.", "a mark that is not there"),
        (b"h\x07.", "never had"),
        (b"K\x01K\x02a.", "no list"),
        (b"K\x01K\x02K\x03s.", "no dictionary"),
        (b"}(K\x01u.", "key without a value"),
        (b"\xff.", "opcode 0xff at byte 0"),
        (b"K\x01K\x02\x93.", "no text"),
        (b"(o.", "no class"),
        (b"gx\n.", "no number"),
        (b"Fx\n.", "no number"),
    ] {
        let text = error(bytes);
        assert!(text.contains(part), "{bytes:?}: {text}");
    }
}

/// A dictionary made from a long list again and again would take memory without end.
#[test]
fn copies_are_counted() {
    let mut bytes = b"](".to_vec();
    for _ in 0..100_000 {
        bytes.extend(b"NN\x86");
    }
    bytes.extend(b"eq\x000ccollections\nOrderedDict\nq\x010");
    for _ in 0..100 {
        bytes.extend(b"h\x01h\x00\x85R0");
    }
    bytes.extend(b"N.");
    assert!(error(&bytes).contains("without end"));
}

/// Any edit of a real pickle ends in values or in words, and in bounded memory.
#[test]
fn edits_do_no_harm() {
    let whole = include_bytes!("../../../../../tests/fixtures/weights/checkpoint.pkl");
    bolero::check!().with_iterations(20_000).with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(edits, cut)| {
        let mut bytes = whole.to_vec();
        for (at, value) in edits {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
        bytes.truncate(bytes.len() - usize::from(*cut) % bytes.len());
        if let Ok((heap, _)) = read(&bytes) {
            for id in 0..heap.all().count() as u32 {
                let _ = (super::super::torch::place(&heap, id), heap.describe(id));
            }
        }
    });
}

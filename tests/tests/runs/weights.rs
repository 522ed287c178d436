//! Weights of other projects in, weights for other programs out, through the binary.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use diptych_tests::{Folder, Ran, tensors, words};

use crate::{tiny, whole, with};

/// A checkpoint that tests/fixtures/make_weights.py made with the real classes.
fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/weights").join(name);
    path.to_str().unwrap().to_string()
}

#[test]
fn a_checkpoint_is_imported_told_about_and_used() {
    let folder = Folder::new();
    let line = format!("import {} --out moco.safetensors --image-size 32", fixture("moco.pth"));
    let ran = folder.run(words(&line)).ended_with(0);
    for part in [
        "moco (detected)",
        "under \"state_dict\"",
        "module.encoder_q.",
        "resnet18, width 1, imagenet stem",
        "104 tensors",
        "32 pixels",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    // The checkpoint itself serves as well as what was imported from it.
    folder.run(words("draw --out images --train-size 20 --flat")).ended_with(0);
    for (weights, out) in [("moco.safetensors".to_string(), "a.npy"), (fixture("moco.pth"), "b.npy")] {
        folder
            .run(words(&format!("embed --data images --out {out} --image-size 32 --weights {weights}")))
            .ended_with(0);
    }
    let read = |name| std::fs::read(folder.path(name)).unwrap();
    assert!(read("a.npy") == read("b.npy") && read("a.npy").len() > 100);
    let more = format!(
        "--set backbone.name=resnet18 --set backbone.base=1 --set backbone.stem=imagenet --set backbone.weights={} --epochs 1",
        fixture("moco.pth")
    );
    folder.run(with(tiny("run"), &more)).ended_with(0);
}

/// Export and import give back the same bytes, counts of batches included; and so does the way through Detectron2's names, but for the counts.
#[test]
fn round_trips_are_equal_to_the_byte() {
    let folder = Folder::new();
    folder.run(words(&format!("import --from swav {} --out a.safetensors", fixture("swav.pth")))).ended_with(0);
    for (format, file) in [("torchvision", "b.safetensors"), ("timm", "c.safetensors"), ("detectron2", "d.pth")] {
        let ran = folder.run(words(&format!("export --weights a.safetensors --format {format} --out {file}")));
        if format == "torchvision" {
            ran.ended_with(0);
            folder.run(words(&format!("import {file} --out back.safetensors"))).ended_with(0);
            let all = tensors(&folder.path("a.safetensors"));
            assert_eq!(all.len(), 120);
            assert!(all == tensors(&folder.path(file)) && all == tensors(&folder.path("back.safetensors")));
        } else {
            // One channel first: neither builds such a network.
            let sentence = ran.refusal();
            assert!(sentence.contains("1 channels first") || sentence.contains("64 channels first"), "{sentence}");
        }
    }
}

/// The whole run's export in every format that takes its stem, each with a card.
#[test]
fn a_card_says_what_was_exported() {
    let folder = Folder::new();
    let run = whole();
    let export = |format: &str, out: &str| {
        folder.run(words(&format!("export --weights {} --format {format} --out {out}", run.display())))
    };
    let ran = export("torchvision", "out.safetensors").ended_with(0);
    assert!(ran.stdout.contains("out.safetensors.card.md"), "{}", ran.stdout);
    let card = std::fs::read_to_string(folder.path("out.safetensors.card.md")).unwrap();
    let sum = sha256(&folder.path("out.safetensors"));
    for part in ["| method | simclr |", "| data | synthetic |", "| knn_top1 |", "load_file(", "```toml", &sum] {
        assert!(card.contains(part), "no {part} in:\n{card}");
    }
    assert!(export("detectron2", "out.safetensors").refusal().contains("must end in .pth"));
    assert!(export("detectron2", "out.pth").refusal().contains("Detectron2's ResNets"));
    assert!(!folder.path("out.pth").exists());
    assert!(export("keras", "out.h5").refusal().contains("is not one of torchvision, timm, detectron2, onnx"));
    assert!(export("onnx", "out.safetensors").refusal().contains("must end in .onnx"));
    let ran = export("onnx", "out.onnx").ended_with(0);
    assert!(ran.stdout.contains("onnxruntime.InferenceSession(\"out.onnx\")"), "{}", ran.stdout);
    // Field 1 of the model is the version of the format, 8.
    assert_eq!(std::fs::read(folder.path("out.onnx")).unwrap()[..2], [0x08, 8]);
    let card = std::fs::read_to_string(folder.path("out.onnx.card.md")).unwrap();
    assert!(card.contains("A vision backbone as an ONNX graph."), "{card}");
}

fn sha256(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn wrong_files_are_refused_in_a_sentence() {
    let folder = Folder::new();
    let whole = std::fs::read(fixture("torchvision.pth")).unwrap();
    std::fs::write(folder.path("cut.pth"), &whole[..whole.len() / 2]).unwrap();
    let header = br#"{"conv1.weight":{"dtype":"F32","shape":[64,3,7,7],"data_offsets":[0,8]}}"#;
    let mut lie = (header.len() as u64).to_le_bytes().to_vec();
    lie.extend(header);
    lie.extend([0; 8]);
    std::fs::write(folder.path("lie.safetensors"), lie).unwrap();
    let torchvision = fixture("torchvision.pth");
    for (line, parts) in [
        ("none.pth".to_string(), vec!["there is no file none.pth"]),
        ("cut.pth".into(), vec!["cut.pth", "not a whole zip archive"]),
        ("lie.safetensors".into(), vec!["conv1.weight has shape [64,3,7,7]", "8 bytes"]),
        (fixture("code.pth"), vec!["code.pth", "posix.system", "nothing was run"]),
        (format!("{torchvision} --from moco"), vec!["no ResNet where moco keeps one", "--from torchvision"]),
        (format!("{torchvision} --backbone resnet34"), vec!["layer1.2.bn1.bias is missing", "shape [1]"]),
        (
            format!("{torchvision} --backbone resnet18 --width 2"),
            vec!["bn1.bias has shape [1], resnet18 expects [128]"],
        ),
        (format!("{torchvision} --stem cifar"), vec!["conv1.weight has shape [1, 3, 7, 7]"]),
        (format!("{torchvision} --stem deep"), vec!["--stem deep"]),
        (format!("{torchvision} --std 0,1,1"), vec!["--std"]),
    ] {
        let sentence = folder.run(words(&format!("import {line} --out out.safetensors"))).refusal();
        assert!(parts.iter().all(|part| sentence.contains(part)), "{line}: {sentence}");
        assert!(!folder.path("out.safetensors").exists());
    }
    let sentence = folder.run(words(&format!("import {torchvision} --out out.pth"))).refusal();
    assert!(sentence.contains("must end in .safetensors"), "{sentence}");
    // A file from which a key was taken, and one with a key too many.
    let bytes = std::fs::read(fixture("timm.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let without: Vec<_> = file.tensors().into_iter().filter(|(name, _)| name != "layer3.0.conv2.weight").collect();
    let mut extra = file.tensors();
    let one = extra.iter().find(|(name, _)| name == "layer3.0.conv2.weight").unwrap().1.clone();
    extra.push(("layer3.0.conv7.weight".into(), one));
    for (tensors, part) in [
        (without, "layer3.0.conv2.weight is missing; resnet18 needs it with shape [4, 4, 3, 3]"),
        (extra, "layer3.0.conv7.weight with shape [4, 4, 3, 3] is no parameter of resnet18"),
    ] {
        std::fs::write(folder.path("edited.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
        let sentence = folder.run(words("import edited.safetensors --out out.safetensors")).refusal();
        assert!(sentence.contains(part), "{sentence}");
    }
}

/// Answers requests for one file of `owner/moco`, as the hub does, until the test ends.
fn hub(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let content = content.clone();
            std::thread::spawn(move || while answer(&stream, &content).is_some() {});
        }
    });
    endpoint
}

fn answer(mut stream: &TcpStream, content: &[u8]) -> Option<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        match line.ok()?.to_ascii_lowercase() {
            line if line.is_empty() => break,
            line => head.push(line),
        }
    }
    if !head.first()?.contains("/owner/moco/resolve/v1/moco.pth") {
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")).and_then(|range| range.split_once('-'));
    let (start, end) = range.unwrap_or(("0", ""));
    let (start, end) = (start.parse::<usize>().ok()?, end.parse().map_or(content.len(), |last: usize| last + 1));
    let (commit, total) = ("0123456789abcdef0123456789abcdef01234567", content.len());
    let fields = format!(
        "ETag: \"abc\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {start}-{}/{total}",
        end.saturating_sub(1)
    );
    write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n{fields}\r\n\r\n", end - start).ok()?;
    stream.write_all(&content[start..end]).ok()
}

#[test]
fn a_checkpoint_of_a_hub_is_downloaded_and_read() {
    let folder = Folder::new();
    let endpoint = hub(std::fs::read(fixture("moco.pth")).unwrap());
    let run = |line: &str| {
        let mut command = folder.command(words(line));
        command
            .env("HF_ENDPOINT", &endpoint)
            .env("HF_HOME", folder.path("cache"))
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN");
        Ran::of(command.output().unwrap())
    };
    let ran = run("import hf://owner/moco@v1/moco.pth --out a.safetensors").ended_with(0);
    assert!(ran.stdout.contains("moco (detected)"), "{}", ran.stdout);
    folder.run(words(&format!("import {} --out b.safetensors", fixture("moco.pth")))).ended_with(0);
    assert!(tensors(&folder.path("a.safetensors")) == tensors(&folder.path("b.safetensors")));
    let sentence = run("import hf://owner/moco --out c.safetensors").refusal();
    assert!(sentence.contains("model.safetensors"), "{sentence}");
}

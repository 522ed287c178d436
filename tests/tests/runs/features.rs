//! Features through the binary: kept from one command to the next, and shown as a page.

use diptych_tests::{Folder, Ran, words};

use crate::whole;

/// `line` with the shared run as `--weights`.
fn on_the_run(folder: &Folder, line: &str) -> Ran {
    let mut args = words(line);
    args.extend(["--weights".into(), whole().to_str().unwrap().into()]);
    folder.run(args)
}

fn from_the_cache(ran: &Ran) -> usize {
    ran.stdout.lines().filter(|line| line.starts_with("features of ") && line.contains(" from the cache in ")).count()
}

/// One pass over the images serves every command that asks for the same features.
#[test]
fn features_are_kept_for_the_next_command() {
    let folder = Folder::new();
    let first = on_the_run(&folder, "eval knn --json a.json").ended_with(0);
    let second = on_the_run(&folder, "eval knn --json b.json").ended_with(0);
    let other = on_the_run(&folder, "eval logistic").ended_with(0);
    let fresh = on_the_run(&folder, "eval knn --no-cache --json c.json").ended_with(0);
    let counts = [&first, &second, &other, &fresh].map(from_the_cache);
    assert_eq!(counts, [0, 2, 2, 0], "{}", second.stdout);
    assert!(second.stdout.contains("features of 64 images from the cache"), "{}", second.stdout);
    let read = |name| std::fs::read_to_string(folder.path(name)).unwrap();
    assert!(read("a.json") == read("b.json") && read("a.json") == read("c.json"));
    // Another backbone is another key, and so is a folder of one's own another place.
    assert_eq!(from_the_cache(&on_the_run(&folder, "eval knn --baseline random").ended_with(0)), 0);
    assert_eq!(from_the_cache(&on_the_run(&folder, "eval knn --cache own").ended_with(0)), 0);
    assert_eq!(std::fs::read_dir(folder.path("own")).unwrap().count(), 2);
    let both = on_the_run(&folder, "eval knn --cache own --no-cache");
    assert_eq!(both.code, Some(2));
}

/// A changed image is embedded again; a file where the cache's folder should be costs a note.
#[test]
fn changed_images_and_broken_caches_are_noticed() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 20 --flat")).ended_with(0);
    let line = "embed --data images --split train --out a.npy";
    assert_eq!(from_the_cache(&on_the_run(&folder, line).ended_with(0)), 0);
    let before = std::fs::read(folder.path("a.npy")).unwrap();
    assert_eq!(from_the_cache(&on_the_run(&folder, line).ended_with(0)), 1);
    assert!(std::fs::read(folder.path("a.npy")).unwrap() == before);
    let listed = std::fs::read_to_string(folder.path("a.npy.paths.txt")).unwrap();
    let names: Vec<&str> = listed.lines().collect();
    std::fs::copy(folder.path("images").join(names[0]), folder.path("images").join(names[1])).unwrap();
    assert_eq!(from_the_cache(&on_the_run(&folder, line).ended_with(0)), 0);
    assert!(std::fs::read(folder.path("a.npy")).unwrap() != before);
    let noted = on_the_run(&folder, "embed --data images --out b.npy --cache a.npy").ended_with(0);
    assert!(noted.stdout.contains("note: features can't be kept in a.npy"), "{}", noted.stdout);
}

#[test]
fn the_page_shows_a_map_and_neighbors() {
    let folder = Folder::new();
    let flag = |line: &str| on_the_run(&folder, line);
    folder.run(words("draw --out shapes --train-size 120 --test-size 60")).ended_with(0);
    flag("embed --data shapes --page look.html").ended_with(0);
    let page = std::fs::read_to_string(folder.path("look.html")).unwrap();
    for part in
        ["<section id=\"map\">", "by t-SNE", "class=\"mosaic\"", "<section id=\"neighbors\">", "of the same class"]
    {
        assert!(page.contains(part), "no {part}");
    }
    assert!(page.len() < 5_000_000 && !page.contains("<script"));
    assert_eq!(page.matches("<div class=\"query\">").count(), 24);
    // The same features give the same page.
    flag("embed --data shapes --page again.html").ended_with(0);
    assert!(std::fs::read_to_string(folder.path("again.html")).unwrap() == page);
    // Without labels nothing is said of classes.
    folder.run(words("draw --out images --train-size 30 --flat")).ended_with(0);
    flag("embed --data images --page flat.html --out f.npy").ended_with(0);
    let page = std::fs::read_to_string(folder.path("flat.html")).unwrap();
    assert!(page.contains("by t-SNE") && !page.contains("same class") && folder.path("f.npy").exists());
    let error = flag("embed --data images --page look.pdf").refusal();
    assert!(error.contains("--page look.pdf must end in .html"), "{error}");
    assert_eq!(flag("embed --data images").code, Some(2));
}

/// The report of a finished run has t-SNE beside the principal components.
#[test]
fn a_finished_run_has_both_maps() {
    let page = std::fs::read_to_string(whole().join("report.html")).unwrap();
    assert!(
        page.contains("by t-SNE") && page.contains("on two principal components") && page.contains("class=\"mosaic\"")
    );
}

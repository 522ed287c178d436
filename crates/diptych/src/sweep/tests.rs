//! Sweeps without their runs.

use super::*;

const SMALL: &str = r#"
title = "Temperature"
recipe = "simclr/quickstart"
seeds = [0, 1]
set = { "data.train_size" = 256, trainer.epochs = 2 }
[grid]
"method.temperature" = [0.1, 0.5]
optim.lr = [0.1, 0.2, 0.3]
"#;

fn problem(text: &str) -> String {
    Sweep::read("x.toml", text).unwrap_err().to_string()
}

#[test]
fn every_shipped_sweep_has_a_plan_of_runs_that_differ() -> anyhow::Result<()> {
    for (name, _) in ALL {
        let (short, sweep) = find(name)?;
        let runs = sweep.plan(name)?;
        assert_eq!(short, *name);
        assert!((8..=24).contains(&runs.len()), "{name}: {}", runs.len());
        assert!(!sweep.note.is_empty(), "{name}");
        let mut recipes: Vec<String> = runs.iter().map(|run| run.recipe.to_toml()).collect::<anyhow::Result<_>>()?;
        let mut folders: Vec<&String> = runs.iter().map(|run| &run.folder).collect();
        recipes.sort();
        recipes.dedup();
        folders.sort();
        folders.dedup();
        assert_eq!((recipes.len(), folders.len()), (runs.len(), runs.len()), "{name}");
        for run in &runs {
            assert!(run.recipe.data.train_size <= 4096 && run.recipe.trainer.epochs <= 10, "{name}");
        }
    }
    Ok(())
}

#[test]
fn the_grid_is_crossed_with_seeds_outermost() -> anyhow::Result<()> {
    let sweep = Sweep::read("x.toml", SMALL)?;
    let runs = sweep.plan("x.toml")?;
    assert_eq!(runs.len(), 12);
    assert!(runs[..6].iter().all(|run| run.seed == 0 && run.recipe.trainer.seed == 0));
    let settings: Vec<usize> = runs.iter().map(|run| run.setting).collect();
    assert_eq!(settings, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    assert_eq!(runs[1].label(&sweep), "temperature = 0.1, lr = 0.2");
    assert_eq!(runs[1].folder, "temperature=0.1-lr=0.2_seed-0");
    assert!(runs.iter().all(|run| run.recipe.trainer.epochs == 2 && run.recipe.data.train_size == 256));
    Ok(())
}

#[test]
fn the_command_line_changes_all_runs_but_not_what_is_varied() -> anyhow::Result<()> {
    let sweep = Sweep::read("x.toml", SMALL)?;
    let overrides = |set: &str| Overrides { set: vec![set.into()], epochs: Some(1), seeds: Some(vec![7]) };
    let runs = sweep.clone().with(&overrides("data.train_size=512"))?.plan("x.toml")?;
    assert_eq!(runs.len(), 6);
    assert!(
        runs.iter().all(|run| run.recipe.trainer.epochs == 1 && run.seed == 7 && run.recipe.data.train_size == 512)
    );
    // A warm-up of one epoch is more than half of such a run.
    assert_eq!(runs[0].recipe.optim.warmup_epochs, 0.1);
    for (set, says) in [
        ("optim.lr=1", "--set optim.lr: the sweep varies this key itself"),
        ("trainer.seed=1", "--set trainer.seed: use --seeds, such as --seeds 0,1,2"),
        ("lr", "--set lr: expected section.key=value, such as optim.lr=0.3"),
    ] {
        assert_eq!(sweep.clone().with(&overrides(set)).unwrap_err().to_string(), says);
    }
    Ok(())
}

#[test]
fn bad_files_are_refused_with_a_sentence() {
    let with = |more: &str| format!("title = \"t\"\nrecipe = \"simclr/quickstart\"\n{more}");
    for (text, says) in [
        ("recipe = \"a\"".to_string(), "sweep x.toml: missing field `title`"),
        ("title = \"t\"".to_string(), "recipe is missing; name one, such as recipe = \"simclr/quickstart\""),
        (with("seds = [1]"), "unknown field `seds`, expected one of `title`"),
        (with("seeds = []"), "seeds is empty; give at least one"),
        (with("seeds = [1, 1]"), "seeds has 1 twice"),
        (with("[grid]\noptim.lr = 1"), "[grid] optim.lr = 1 is not a list; write [1], or move it to [set]"),
        (with("[grid]\noptim.lr = []"), "[grid] optim.lr is empty"),
        (with("[grid]\nlr = [1]"), "[grid] lr: a key is section.key, such as \"optim.lr\""),
        (with("[set]\noptim.lr = 1\n[grid]\noptim.lr = [1]"), "optim.lr is in [set] and in [grid]; keep one"),
        (with("[grid]\ntrainer.seed = [1]"), "trainer.seed is set by seeds = [..]; take it out"),
        (with("[[variants]]\nname = \"\""), "each variant has a name of its own"),
        (with("[plot]\nx = \"optim.lr\""), "[plot] x = \"optim.lr\" is not a key of [grid]"),
        (
            with("[plot]\nx = \"optim.name\"\n[grid]\noptim.name = [\"sgd\"]"),
            "takes numbers, [grid] has \"sgd\" for it",
        ),
        (with("title = \"again\""), "duplicate key (line 3)"),
    ] {
        let problem = problem(&text);
        assert!(problem.contains(says) && !problem.contains('\n'), "{text}\n{problem}");
    }
}

/// What is wrong with a recipe is said before the first run, with the variant.
#[test]
fn bad_recipes_are_refused_before_any_run() -> anyhow::Result<()> {
    for (set, says) in [
        ("\"method.temperatur\" = 1", "sweep x.toml: [[variants]] odd: "),
        ("\"method.temperature\" = -1", "temperature must be positive, it is -1"),
        ("\"trainer.epochs\" = 0", "trainer.epochs must be at least 1, it is 0"),
    ] {
        let text =
            format!("title = \"t\"\nrecipe = \"simclr/quickstart\"\n[[variants]]\nname = \"odd\"\nset = {{ {set} }}");
        let problem = Sweep::read("x.toml", &text)?.plan("x.toml").unwrap_err().to_string();
        assert!(problem.contains(says) && !problem.contains('\n'), "{problem}");
    }
    let nowhere = "title = \"t\"\nrecipe = \"simclr/nope\"";
    assert!(
        Sweep::read("x.toml", nowhere)?
            .plan("x.toml")
            .unwrap_err()
            .to_string()
            .contains("there is no recipe simclr/nope")
    );
    assert!(find("nope").unwrap_err().to_string().contains("simsiam_ablations"));
    Ok(())
}

fn outcome(value: Option<f64>, collapsed_since: Option<u64>, stopped: &str) -> Option<Outcome> {
    let spread = Some(if collapsed_since.is_some() { 0.01 } else { 0.97 });
    Some(Outcome {
        value,
        collapsed_since,
        spread,
        images_per_second: Some(200.0),
        step: 60,
        stopped: stopped.into(),
        random_knn: Some(0.25),
    })
}

#[test]
fn the_table_has_means_deviations_and_what_went_wrong() -> anyhow::Result<()> {
    let text = "title = \"A | b\"\nrecipe = \"simclr/quickstart\"\nseeds = [3, 4]\n[grid]\noptim.lr = [0.1, 9, 99]";
    let sweep = Sweep::read("x.toml", text)?;
    let outcomes = [
        outcome(Some(0.5), None, ""),
        outcome(Some(0.2), Some(12), ""),
        outcome(None, None, "the loss is NaN"),
        outcome(Some(0.6), None, ""),
        outcome(Some(0.1), None, ""),
        None,
    ];
    let runs: Vec<(Planned, Option<Outcome>)> = sweep.plan("x.toml")?.into_iter().zip(outcomes).collect();
    let summary = Summary::new(&sweep, &runs);
    assert_eq!((summary.ended(), summary.total(), summary.random_knn()), (5, 6, Some(0.25)));
    assert_eq!(
        summary.table(),
        "| lr | seed 3 | seed 4 | mean | deviation | spread | collapsed? | images/s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n\
         | 0.1 | 50.0 % | 60.0 % | 55.0 % | 7.1 % | 97 % | no | 200 |\n\
         | 9 | 20.0 % | 10.0 % | 15.0 % | 7.1 % | 49 % | collapsed at step 12; no | 200 |\n\
         | 99 | – | – | – | – | 97 % | stopped at step 60 | 200 |\n"
    );
    assert_eq!(summary.rows[1].remark(), "1 of 2 collapsed");
    let dir = tempfile::tempdir()?;
    summary.write(dir.path())?;
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name));
    let json: serde_json::Value = serde_json::from_str(&read("sweep.json")?)?;
    assert_eq!(
        (&json["rows"][0]["mean"], &json["rows"][1]["runs"][0]["outcome"]["collapsed_since"]),
        (&0.55.into(), &12.into())
    );
    assert!(read("sweep.md")?.contains("5 of 6 runs have ended."));
    let html = read("sweep.html")?;
    assert!(html.contains("<a href=\"lr=0.1_seed-3/report.html\">50.0 %</a>") && html.contains("1 of 2 collapsed"));
    assert!(!html.contains("http://www.example") && !html.contains("<script") && !html.contains("NaN %"));
    assert!(read("plot.svg")?.starts_with("<svg xmlns="));
    Ok(())
}

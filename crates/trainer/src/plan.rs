//! What a run will do, said before it begins.

use diptych_kernels::device;
use diptych_nn::Group;

use crate::machine::{available_memory, bytes, count, duration};
use crate::{Prepared, trial::trial};

/// The plan as lines of text: data, network, parameter groups, learning rate, and what it will take.
///
/// # Errors
/// If the trial step fails.
pub fn plan(run: &Prepared) -> anyhow::Result<Vec<String>> {
    let recipe = &run.recipe;
    let mut lines = Vec::new();
    let mut say = |what: &str, text: String| lines.push(format!("{what:<14} {text}"));
    say("method", run.entry.paper.to_string());
    let test = match &run.splits.test {
        Some(test) => format!("{} test images", count(test.len())),
        None => "no test images".to_string(),
    };
    let classes = match run.splits.bank().classes().len() {
        0 => "no labels".to_string(),
        n => format!("{n} classes"),
    };
    say("data", format!("{}: {} training images, {test}, {classes}", recipe.data.path, count(run.splits.train.len())));
    run.splits.notes.iter().for_each(|note| say("", note.clone()));
    let params = run.method.params();
    let trunk = params.trainable().filter(|(_, p)| p.group == Group::Trunk).map(|(_, p)| p.var.elem_count()).sum();
    say(
        "backbone",
        format!(
            "{}, width {}x, {} parameters, {} features",
            recipe.backbone.name,
            recipe.backbone.width,
            count(trunk),
            run.method.backbone().out_dim()
        ),
    );
    say("heads", format!("{} parameters", count(params.trainable_values() - trunk)));
    diptych_optim::describe(params, &recipe.optim).into_iter().for_each(|line| say("optimizer", line));
    let peak = recipe.optim.effective_lr(recipe.trainer.batch_size);
    say(
        "learning rate",
        format!("{peak:.4} at batch {} after warm-up, {}", recipe.trainer.batch_size, recipe.optim.lr_scaling_text()),
    );
    let total = run.total_steps();
    say(
        "steps",
        format!(
            "{} = {} epochs of {} steps of {} images",
            count(total as usize),
            recipe.trainer.epochs,
            run.steps_per_epoch,
            recipe.trainer.batch_size
        ),
    );
    if let Some(words) = run.division.describe() {
        say("division", words);
    }
    let trial = trial(run)?;
    let weights: u64 = params.iter().map(|(_, p)| p.var.elem_count() as u64 * 4).sum();
    let pixels: usize = recipe.augment.views().iter().map(|view| view.size.pow(2)).sum();
    let views = (recipe.trainer.batch_size * pixels * 12) as u64;
    let isa = diptych_kernels::isa();
    let card = device::describe(&run.device)?.into_iter().find(|(what, _)| *what == "GPU");
    let place = card.map_or_else(|| isa.to_string(), |(_, card)| card);
    say("kernels", format!("{place}, activations in {}", format!("{:?}", recipe.trainer.precision).to_lowercase()));
    if let Some(asked) = std::env::var("DIPTYCH_ISA").ok().filter(|asked| asked != isa) {
        say("warning", format!("DIPTYCH_ISA={asked} names no instruction set that this machine has; using {isa}"));
    }
    // Activations are freed on the way back, while a few gradients of their size live.
    // Every rank has weights of its own; sums over parts hold one more of each gradient.
    let copies = 3 + u64::from(run.division.parts().count() > 1);
    let memory = copies * run.division.ranks() as u64 * weights + trial.activations / 4 * 5 + 4 * views;
    say("memory", format!("about {}", bytes(memory)));
    say("time", format!("about {} of steps on this machine", duration(trial.seconds * total as f64)));
    if let Some(free) = available_memory().filter(|free| memory > *free) {
        say(
            "warning",
            format!(
                "only {} of memory are free; a smaller --batch-size or a larger trainer.grad_cache needs less",
                bytes(free)
            ),
        );
    }
    Ok(lines)
}

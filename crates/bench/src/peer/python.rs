//! The Python that runs PyTorch, and the environment with the pinned packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Launcher;

/// The peer's program, file by file; it is written into a temporary folder, so that the binary works alone.
const PROGRAM: [(&str, &str); 15] = [
    ("torch_peer.py", include_str!("../../peer/torch_peer.py")),
    ("common.py", include_str!("../../peer/common.py")),
    ("ops.py", include_str!("../../peer/ops.py")),
    ("evaluation.py", include_str!("../../peer/evaluation.py")),
    ("losses.py", include_str!("../../peer/losses.py")),
    ("neighbors.py", include_str!("../../peer/neighbors.py")),
    ("contrast.py", include_str!("../../peer/contrast.py")),
    ("views.py", include_str!("../../peer/views.py")),
    ("recipes.py", include_str!("../../peer/recipes.py")),
    ("operations.py", include_str!("../../peer/operations.py")),
    ("pipelines.py", include_str!("../../peer/pipelines.py")),
    ("workers.py", include_str!("../../peer/workers.py")),
    ("optim.py", include_str!("../../peer/optim.py")),
    ("steps.py", include_str!("../../peer/steps.py")),
    ("weights.py", include_str!("../../peer/weights.py")),
];
const REQUIREMENTS: &str = include_str!("../../peer/requirements.txt");
/// Left in an environment once it is whole.
const MARK: &str = "diptych-requirements.txt";

/// Where Python comes from.
pub(crate) enum Choice {
    /// A Python that has the packages.
    Given(PathBuf),
    /// A virtual environment in this folder, made where it is missing.
    Environment(PathBuf),
}

/// Python and the program for it.
pub(crate) struct Python {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Python {
    /// Finds Python, and makes the environment if that is asked for and needed.
    ///
    /// # Errors
    /// One sentence, where there is no Python, or where the packages cannot be installed.
    pub(crate) fn new(choice: &Choice) -> Result<Self> {
        let program = match choice {
            Choice::Given(path) => path.clone(),
            Choice::Environment(folder) => environment(folder)?,
        };
        let folder = tempfile::tempdir().context("cannot make a temporary folder for the peer's program")?;
        for (name, text) in PROGRAM {
            std::fs::write(folder.path().join(name), text).context("cannot write the peer's program")?;
        }
        Ok(Self { program, folder })
    }
}

impl Python {
    /// A file of the program, to be started with so many threads.
    pub(crate) fn program(&self, file: &str, threads: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-u").arg(self.folder.path().join(file));
        command.env("OMP_NUM_THREADS", threads.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
        // It would ask the network for news of itself.
        command.env("NO_ALBUMENTATIONS_UPDATE", "1");
        command
    }
}

impl Launcher for Python {
    fn command(&self, threads: usize) -> Command {
        self.program("torch_peer.py", threads)
    }
}

/// The Python of the environment in `folder`, which is made or completed first where needed.
fn environment(folder: &Path) -> Result<PathBuf> {
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let mark = folder.join(MARK);
    if python.is_file() && std::fs::read_to_string(&mark).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(python);
    }
    let packages: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    eprintln!(
        "making the Python environment {} with {} from PyPI (some GB, once) ...",
        folder.display(),
        packages.join(", ")
    );
    let base = base_python()?;
    call(Command::new(base).args(["-m", "venv"]).arg(folder)).with_context(|| {
        format!("{base} cannot make a virtual environment; install its venv module, or give --python PATH")
    })?;
    let list = folder.join("requirements.txt");
    std::fs::write(&list, REQUIREMENTS).with_context(|| format!("cannot write {}", list.display()))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list);
    call(&mut install).context("the packages cannot be installed from PyPI; is there a network? Otherwise give --python PATH of a Python that has them")?;
    std::fs::write(&mark, REQUIREMENTS).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(python)
}

/// A Python 3 on the path.
fn base_python() -> Result<&'static str> {
    let answers = |name: &&str| {
        let mut command = Command::new(name);
        command.args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    match ["python3", "python"].iter().find(|name| answers(name)) {
        Some(name) => Ok(name),
        None => bail!(
            "--peer torch needs Python 3.10 or newer, and there is none on the path; install it, or give --python PATH"
        ),
    }
}

/// Runs a command; its last line of complaint is the error.
fn call(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let last =
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim().to_string();
        bail!("{last}")
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment whose mark holds these very requirements is taken as it is; any other is not.
    #[test]
    fn an_environment_is_reused_by_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
        std::fs::create_dir_all(python.parent().unwrap()).unwrap();
        std::fs::write(&python, "").unwrap();
        std::fs::write(folder.path().join(MARK), REQUIREMENTS).unwrap();
        assert_eq!(environment(folder.path()).unwrap(), python);
    }

    #[test]
    fn every_package_is_pinned() {
        for line in REQUIREMENTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(line.contains("=="), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_last_line_of_complaint_is_the_reason() {
        let error = call(Command::new("sh").args(["-c", "echo first >&2; echo 'no network' >&2; echo >&2; exit 1"]));
        assert_eq!(error.unwrap_err().to_string(), "no network");
    }
}

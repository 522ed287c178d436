//! Names become folders of the cache and parts of an address, so they are checked first.

use hf_hub::RepoType;

use crate::HubError;

/// Checks the three names; returns the kind of the repository and its name without the kind.
pub(crate) fn check<'a>(repo: &'a str, revision: &str, file: &str) -> Result<(RepoType, &'a str), HubError> {
    let (kind, id) = match repo.strip_prefix("datasets/") {
        Some(id) => (RepoType::Dataset, id),
        None => (RepoType::Model, repo),
    };
    let named = id.split('/').count() <= 2 && parts_are_plain(id);
    refuse_unless(named, "repository", repo, "write owner/name, with letters, digits, '.', '-' and '_'")?;
    refuse_unless(parts_are_plain(revision), "revision", revision, "write a branch, a tag or a commit")?;
    refuse_unless(
        parts_are_plain(file),
        "file",
        file,
        "write a path inside the repository, such as model.safetensors",
    )?;
    Ok((kind, id))
}

fn refuse_unless(good: bool, what: &'static str, value: &str, why: &'static str) -> Result<(), HubError> {
    if good { Ok(()) } else { Err(HubError::Name { what, value: value.into(), why }) }
}

/// Parts between slashes that are neither empty nor `.` nor `..`, of characters that mean themselves in an address.
fn parts_are_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '=' | '@');
    name.len() <= 256 && name.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        assert!(check("timm/resnet18.tv_in1k", "main", "model.safetensors").is_ok());
        assert!(check("gpt2", "refs/pr/1", "onnx/model.onnx").is_ok());
        let (kind, id) = check("datasets/owner/name", "v1.0", "data/train-00000-of-00001.parquet").unwrap();
        assert!(matches!(kind, RepoType::Dataset) && id == "owner/name");
    }

    #[test]
    fn names_that_leave_their_place_are_refused() {
        for repo in ["", "a/b/c", "../x", "a/..", "/a", "a/", "a b/c", "a/b?x", "a\\b", "https://example.org"] {
            assert!(matches!(check(repo, "main", "f"), Err(HubError::Name { what: "repository", .. })), "{repo}");
        }
        for revision in ["", "..", "a/../b", "a%2Fb", "a\nb"] {
            assert!(matches!(check("a/b", revision, "f"), Err(HubError::Name { what: "revision", .. })), "{revision}");
        }
        for file in ["", "/etc/passwd", "../f", "a/../../f", "a//f", "f#x", "f\0"] {
            assert!(matches!(check("a/b", "main", file), Err(HubError::Name { what: "file", .. })), "{file}");
        }
    }
}

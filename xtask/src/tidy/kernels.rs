//! Rules on CUDA sources: a head, nothing but the house's own headers, sums in an order that shapes decide.

use super::Finding;

/// Checks one file of `crates/kernels`.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let cuda = [".cu", ".cuh", ".h", ".cpp"].iter().any(|ending| path.ends_with(ending));
    if !path.starts_with("crates/kernels/") || !cuda {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !text.starts_with("// ") {
        findings.push(Finding::new(path, 1, "begins without a `//` sentence that says what the file is for"));
    }
    let kernel = path.ends_with(".cu") || path.ends_with(".cuh");
    for (i, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if kernel && code.contains("atomicAdd") {
            let message =
                "`atomicAdd` adds in whatever order threads come; write partial sums and add them in a second pass";
            findings.push(Finding::new(path, i + 1, message));
        }
        if kernel && code.starts_with("#include <") {
            let message =
                "kernels include `cuda/common.cuh` and headers of ours only, so that they run on the emulator too";
            findings.push(Finding::new(path, i + 1, message));
        }
        if path.ends_with("_index.h") && (code.contains("threadIdx") || code.contains("__shared__")) {
            let message =
                "index arithmetic is plain C++ that takes its indices as arguments, so that it can be tested on a CPU";
            findings.push(Finding::new(path, i + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(path, text).len()
    }

    #[test]
    fn each_rule_is_broken_by_its_example() {
        let head = "// A kernel.\n";
        assert_eq!(found("crates/kernels/src/a/a.cu", head), 0);
        assert_eq!(found("crates/kernels/src/a/a.cu", "#include \"x\"\n"), 1);
        for line in ["atomicAdd(p, v);", "#include <cuda_bf16.h>"] {
            assert_eq!(found("crates/kernels/src/a/a.cu", &format!("{head}{line}\n")), 1, "{line}");
            assert_eq!(found("tests/emulator/a.cpp", &format!("{head}{line}\n")), 0, "{line}");
        }
        assert_eq!(found("crates/kernels/src/a/a_index.h", &format!("{head}int i = threadIdx.x;\n")), 1);
        assert_eq!(found("crates/kernels/src/a/a_index_test.cpp", &format!("{head}#include <vector>\n")), 0);
    }
}

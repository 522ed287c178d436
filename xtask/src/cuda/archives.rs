//! Archives to link with in place of NVIDIA's libraries, which are opened when they are first called.
//!
//! A program that was linked to `libcuda.so.1` does not even start where there is no driver. So `-lcuda`, `-lcublas` and so on find archives here
//! that hold one jump for each function cudarc declares. A jump first leads to `lazy.c`, which opens the library and looks the function up; from
//! then on it leads there directly, as a dynamic linker's own tables do. Where there is no library, a call returns that
//! library's own code for it, and Candle makes an error of that.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A library that cudarc declares.
struct Library {
    name: &'static str,
    /// cudarc's module of its functions, and how their names begin.
    module: &'static str,
    prefix: &'static str,
    /// File names, tried in this order.
    files: &'static [&'static str],
    /// What every function returns where there is none.
    absent: i32,
}

const LIBRARIES: [Library; 7] = [
    // CUDA_ERROR_NO_DEVICE, CUBLAS_STATUS_NOT_INITIALIZED, CURAND_STATUS_NOT_INITIALIZED, NVRTC_ERROR_PROGRAM_CREATION_FAILURE,
    // CUDNN_STATUS_NOT_INITIALIZED, ncclSystemError.
    library("cuda", "driver", "cu", &["libcuda.so.1"], 100),
    library("cublas", "cublas", "cublas", &["libcublas.so.13", "libcublas.so.12"], 1),
    library("cublasLt", "cublaslt", "cublasLt", &["libcublasLt.so.13", "libcublasLt.so.12"], 1),
    library("curand", "curand", "curand", &["libcurand.so.10"], 101),
    library("nvrtc", "nvrtc", "nvrtc", &["libnvrtc.so.13", "libnvrtc.so.12"], 2),
    library("cudnn", "cudnn", "cudnn", &["libcudnn.so.9"], 1001),
    library("nccl", "nccl", "nccl", &["libnccl.so.2"], 2),
];

const fn library(
    name: &'static str,
    module: &'static str,
    prefix: &'static str,
    files: &'static [&'static str],
    absent: i32,
) -> Library {
    Library { name, module, prefix, files, absent }
}

/// Makes the archives below `folder` from cudarc's source; returns the home whose `lib` holds them.
pub(super) fn make(folder: &Path, cudarc: &Path, runtime: &Path) -> Result<PathBuf> {
    let home = folder.join("link");
    let lib = home.join("lib");
    let done = home.join("complete");
    // Another cudarc or another form of the archives makes them anew.
    let wanted = format!("{}\n{}\n{RESOLVE}{LAZY}", cudarc.display(), runtime.display());
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(home);
    }
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
    for library in &LIBRARIES {
        let path = cudarc.join("src").join(library.module).join("sys/mod.rs");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let functions = functions(&text, library.prefix);
        if functions.is_empty() {
            bail!("{} declares no function of {}", path.display(), library.name);
        }
        archive(library, &functions, &lib)?;
    }
    // `-lcudart` is asked for by what candle-kernels compiles; the static runtime opens the driver by itself.
    fs::copy(runtime, lib.join("libcudart.a")).with_context(|| format!("cannot copy {}", runtime.display()))?;
    fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(home)
}

/// The foreign functions that a Rust source declares, in order.
fn functions<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub "))
        .filter_map(|line| line.strip_prefix("unsafe ").unwrap_or(line).strip_prefix("fn "))
        .filter_map(|line| line.split('(').next())
        .filter(|name| {
            let rest = name.strip_prefix('p').filter(|_| prefix == "nccl").unwrap_or(name).strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

const LAZY: &str = include_str!("lazy.c");

/// Saves what may hold arguments, asks `lazy.c` for the function whose number lies on the stack, and goes there.
const RESOLVE: &str = "\
resolve:
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %rax
    subq $136, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movl 192(%rsp), %edi
    call diptych_open_NAME
    movq %rax, %r11
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $136, %rsp
    popq %rax
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    addq $8, %rsp
    jmp *%r11
";

/// One jump for each function, through a table whose entries first lead to `resolve`.
fn assembly(library: &Library, functions: &[&str]) -> String {
    let mut text = String::from(".text\n");
    for (i, name) in functions.iter().enumerate() {
        let _ = writeln!(text, ".globl {name}\n.type {name}, @function\n{name}:\n    jmp *slots+{}(%rip)", 8 * i);
        let _ = writeln!(text, ".size {name}, .-{name}\nfirst_{i}:\n    pushq ${i}\n    jmp resolve");
    }
    text += &RESOLVE.replace("NAME", library.name);
    let table = format!("diptych_slots_{}", library.name);
    let _ = writeln!(text, ".data\n.balign 8\n.globl {table}\n.hidden {table}\n{table}:\nslots:");
    for i in 0..functions.len() {
        let _ = writeln!(text, "    .quad first_{i}");
    }
    text + ".section .note.GNU-stack,\"\",@progbits\n"
}

/// `lazy.c` for this library.
fn resolver(library: &Library, functions: &[&str]) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "#define NAME {}\n#define ABSENT {}\nstatic const char *const files[] = {{{}, 0}};\nstatic const char *const names[] = {{{}}};\n{LAZY}",
        library.name,
        library.absent,
        quoted(library.files),
        quoted(functions),
    )
}

fn archive(library: &Library, functions: &[&str], lib: &Path) -> Result<()> {
    let file = |ending: &str| lib.join(format!("{}{ending}", library.name));
    let (jumps, resolve, whole) = (file(".S"), file(".c"), file(".o"));
    fs::write(&jumps, assembly(library, functions))?;
    fs::write(&resolve, resolver(library, functions))?;
    // One relocatable object, in which the hidden names are settled.
    tool(Command::new("cc").args(["-O2", "-fPIC", "-nostdlib", "-r", "-o"]).args([&whole, &jumps, &resolve]))?;
    let made = lib.join(format!("lib{}.a", library.name));
    tool(Command::new("ar").arg("rcs").args([&made, &whole]))?;
    for path in [jumps, resolve, whole] {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn tool(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}; install a C compiler and binutils"))?;
    if !output.status.success() {
        bail!("{name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_those_declared_with_the_prefix() {
        let text = "    pub fn cuInit(flags: u32) -> X;\n pub unsafe fn cuMemFree_v2(p: u64);\npub fn cublasCreate();\npub struct cuX;\nfn cuNo();\n";
        assert_eq!(functions(text, "cu"), ["cuInit", "cuMemFree_v2"]);
        assert_eq!(functions("pub fn pncclSend(a: u8);\npub fn ncclRecv();", "nccl"), ["ncclRecv", "pncclSend"]);
    }

    /// A C program calls a function with more arguments than registers, of all kinds, through an archive: the library is opened on the
    /// call, and every argument arrives. Without the library the call returns the library's code.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn a_call_arrives_in_a_library_that_is_opened_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path();
        let toy = library("toy", "toy", "toy", &["libtoy.so.1"], 77);
        archive(&toy, &["toySum", "toyUnused"], lib).unwrap();
        let write = |name: &str, text: &str| fs::write(lib.join(name), text).unwrap();
        let sum = "int toySum(int a, double b, int c, float d, long e, int f, int g, int h, double i, int j)";
        write("toy.c", &format!("{sum} {{ return a + 2*b + 3*c + 4*d + 5*e + 6*f + 7*g + 8*h + 9*i + 10*j; }}"));
        let call = "toySum(1, 2.0, 3, 4.0f, 5, 6, 7, 8, 9.0, 10)";
        write("main.c", &format!("{sum};\nint main(void) {{ int a = {call}; return a == {call} ? a % 251 : 255; }}"));
        tool(Command::new("cc").args(["-shared", "-fPIC", "-o", "libtoy.so.1", "toy.c"]).current_dir(lib)).unwrap();
        tool(
            Command::new("cc")
                .args(["main.c", "-L.", "-l:libtoy.a", "-ldl", "-lpthread", "-o", "main"])
                .current_dir(lib),
        )
        .unwrap();
        let run =
            |path: &Path| Command::new(lib.join("main")).env("LD_LIBRARY_PATH", path).output().unwrap().status.code();
        // 1 + 4 + 9 + 16 + 25 + 36 + 49 + 64 + 81 + 100 = 385
        assert_eq!(run(lib), Some(385 % 251));
        assert_eq!(run(Path::new("/nowhere")), Some(77));
    }
}

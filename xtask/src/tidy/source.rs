//! A Rust file as the rules see it: its code without comments and strings, and which lines are test code.

/// One source file.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// As it stands in the file.
    pub(crate) text: String,
    /// The same lines, with comments and the inside of strings and characters blanked.
    pub(crate) code: String,
    /// For each line: is it in a `#[cfg(test)]` item?
    test_lines: Vec<bool>,
    /// Is the whole file test code?
    test_file: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let test_lines = test_lines(&code);
        let test_file = path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "tests.rs"));
        Self { path: path.into(), text: text.into(), code, test_lines, test_file }
    }

    /// Lines of code outside of tests, with their numbers from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let outside = |&(i, _): &(usize, &str)| !self.test_file && !self.test_lines.get(i).copied().unwrap_or(false);
        self.code.lines().enumerate().filter(outside).map(|(i, line)| (i + 1, line))
    }

    /// All lines of code, tests included, with their numbers from 1.
    pub(crate) fn all_code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    pub(crate) fn is_test_file(&self) -> bool {
        self.test_file
    }

    /// The folder in which the modules that this file declares lie.
    fn module_folder(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_string(),
            _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
        }
    }
}

/// Marks the files of modules declared as `#[cfg(test)] mod name;` as test code.
pub(crate) fn mark_test_modules(sources: &mut [Source]) {
    let mut modules = Vec::new();
    for source in sources.iter() {
        for (i, line) in source.code.lines().enumerate() {
            let declared = line.trim().trim_start_matches("pub(crate) ").strip_prefix("mod ");
            if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')).filter(|_| source.test_lines[i]) {
                modules.push(format!("{}/{}", source.module_folder(), name.trim()));
            }
        }
    }
    for source in sources {
        source.test_file |= modules.iter().any(|module| {
            source.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
}

/// Is `needle` in `line` as a whole word or path, not as a part of a longer name?
pub(crate) fn has_word(line: &str, needle: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(start, _)| {
        let before = line[..start].chars().next_back().is_none_or(|c| !part(c) || !needle.starts_with(part));
        let after = line[start + needle.len()..].chars().next().is_none_or(|c| !part(c) || !needle.ends_with(part));
        before && after
    })
}

/// Replaces comments and the inside of string and character literals by spaces; newlines stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => find(&chars, i, |rest| rest[0] == '\n'),
            '/' if chars.get(i + 1) == Some(&'*') => end_of_block_comment(&chars, i),
            '"' => end_of_string(&chars, i),
            'r' if !within_name(&chars, i) => end_of_raw_string(&chars, i),
            '\'' => end_of_character(&chars, i),
            _ => i,
        };
        if end == i {
            code.push(chars[i]);
            i += 1;
        } else {
            code.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    code
}

fn find(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&i| stop(&chars[i..])).unwrap_or(chars.len())
}

/// Is the character before `i` a part of a name? (`br"` and `cr"` begin raw strings too.)
fn within_name(chars: &[char], i: usize) -> bool {
    let before = |back: usize| i.checked_sub(back).map(|at| chars[at]);
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    part(before(1)) && (!matches!(before(1), Some('b' | 'c')) || part(before(2)))
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let closes = |rest: &[char]| rest[0] == '"' && rest[1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    (find(chars, start + 2 + hashes, closes) + 1 + hashes).min(chars.len())
}

/// The end of `'x'` or `'\n'`; `start` itself when the quote begins a lifetime.
fn end_of_character(chars: &[char], start: usize) -> usize {
    if chars.get(start + 1) == Some(&'\\') {
        return (find(chars, start + 3, |rest| rest[0] == '\'') + 1).min(chars.len());
    }
    if chars.get(start + 2) == Some(&'\'') { start + 3 } else { start }
}

/// For each line of blanked code, whether a `#[cfg(test)]` item covers it.
fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.lines().count() + 1];
    for marker in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (start, _) in code.match_indices(marker) {
            let first = code[..start].matches('\n').count();
            let last = first + code[start..start + item_length(&code[start..])].matches('\n').count();
            lines[first..=last].fill(true);
        }
    }
    lines
}

/// The length of the item that begins with an attribute: to its `;`, or to the brace that closes its first.
fn item_length(code: &str) -> usize {
    let (mut braces, mut brackets) = (0, 0);
    for (i, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if braces == 0 && brackets == 0 && matches!(c, '}' | ';') {
            return i + 1;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_lines_stay() {
        let code =
            blank("let a = \"x // \\\" y\"; // unsafe\n/* a /* b */ unsafe */ let b = r#\"un\"safe\"#;\nlet c = 'u';");
        assert!(!code.contains("unsafe") && !code.contains('x') && !code.contains('\''), "{code}");
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("let a =") && code.contains("let b =") && code.contains("let c ="));
    }

    #[test]
    fn lifetimes_and_escaped_characters_do_not_swallow_code() {
        assert!(blank("fn f<'a>(x: &'a str) { unsafe_here() }").contains("unsafe_here"));
        assert!(blank("let q = '\\''; let s = '\\u{1F600}'; after()").contains("after"));
        assert!(blank("let q = '\"'; after()").contains("after"));
        assert!(!blank("let b = br\"hidden\"; let r = 1;").contains("hidden"));
        assert!(blank("let for_r = attr; after()").contains("attr; after"));
    }

    #[test]
    fn test_items_are_left_out_and_what_follows_is_not() {
        let source =
            Source::new("crates/a/src/lib.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n");
        let lines: Vec<usize> = source.code_lines().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 6]);
    }

    #[test]
    fn modules_declared_for_tests_are_test_files() {
        let mut sources = [
            Source::new("crates/a/src/lib.rs", "#[cfg(test)]\nmod check;\nmod real;"),
            Source::new("crates/a/src/check.rs", ""),
            Source::new("crates/a/src/check/deep.rs", ""),
            Source::new("crates/a/src/real.rs", "#[cfg(test)]\npub(crate) mod inner;"),
            Source::new("crates/a/src/real/inner.rs", ""),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(sources.map(|source| source.is_test_file()), [false, true, true, false, true]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe { x }", "unsafe") && has_word("std::fs::read(p)", "std::fs"));
        assert!(!has_word("allow(unsafe_code)", "unsafe") && !has_word("MyFile::new()", "File::"));
        assert!(has_word("File::open(p)", "File::"));
    }
}

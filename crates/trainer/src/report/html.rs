//! Text for the page: escaping and numbers as a reader wants them.

/// Text for HTML, in content and in quoted attributes. Control characters that HTML forbids become the replacement
/// character.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// `12345678` as `12,345,678`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A fraction as a percentage with one digit after the point.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.1} %", 100.0 * fraction) } else { "not a number".into() }
}

/// A value to four significant digits, with a power of ten when very large or small.
pub fn value(number: f64) -> String {
    if !number.is_finite() {
        return "not a number".into();
    }
    let size = number.abs();
    if number == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        trim_mantissa(&format!("{number:.2e}"))
    } else if size >= 1000.0 {
        let sign = if number < 0.0 { "−" } else { "" };
        sign.to_owned() + &thousands(size.round() as u64)
    } else {
        let digits = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
        minus(format!("{number:.digits$}"))
    }
}

/// A setting as it was typed: `0.001`, `8192`, `1e-7`.
pub(super) fn plain(number: f64) -> String {
    let size = number.abs();
    minus(if number == 0.0 || (1e-4..1e6).contains(&size) { format!("{number}") } else { format!("{number:e}") })
}

/// A true minus sign: a hyphen is hard to see in small type.
pub(super) fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// `5.00e-4` as `5e-4`.
pub(super) fn trim_mantissa(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            minus(format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.')))
        }
        _ => minus(text.to_owned()),
    }
}

/// Seconds as `41 s`, `12 min`, `3 h 05 min` or `2 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    // `as` saturates, also for NaN and negative numbers.
    let seconds = seconds.round() as u64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => format!("{minutes} min {:02} s", seconds % 60),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_cannot_leave_its_place() {
        let text = escape("<script>alert(\"it's\")</script> & \u{0}\u{1b}[31m\nä");
        let expected = "&lt;script&gt;alert(&quot;it&#39;s&quot;)&lt;/script&gt; &amp; \u{fffd}\u{fffd}[31m\nä";
        assert_eq!(text, expected);
    }

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0.0, "0"),
            (4.256_78, "4.257"),
            (-0.012_345, "−0.01235"),
            (812.34, "812.3"),
            (12_345.6, "12,346"),
            (-1234.5, "−1,235"),
            (5e-4, "5e-4"),
            (-1.25e9, "−1.25e9"),
            (f64::NAN, "not a number"),
        ];
        for (number, text) in cases {
            assert_eq!(value(number), text);
        }
        assert_eq!([thousands(7), thousands(1000), thousands(12_345_678)], ["7", "1,000", "12,345,678"]);
        assert_eq!(percent(0.7834), "78.3 %");
    }

    #[test]
    fn durations_read_well() {
        let cases =
            [(41.2, "41 s"), (61.0, "1 min 01 s"), (754.0, "12 min"), (11_100.0, "3 h 05 min"), (187_200.0, "2 d 4 h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(f64::NAN), "0 s");
    }
}

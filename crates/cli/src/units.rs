//! Numbers with units, as people write and read them.

/// `24GiB`, `80GB`, `512M` (binary) or a number of bytes.
///
/// # Errors
/// In words, for clap.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("a number and a unit are expected, such as 24GiB or 80GB".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a number and a unit are expected, such as 24GiB or 80GB".to_string())?;
    let bytes = number * factor as f64;
    match (1.0..1e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err("more than 0 and less than an exabyte is expected".into()),
    }
}

/// `1536` as `1.5 KiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match size < 10.0 {
        true => format!("{size:.2} {}", UNITS[unit]),
        false => format!("{size:.1} {}", UNITS[unit]),
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_either_kind_of_unit() {
        let cases = [
            ("24GiB", 24 << 30),
            ("24g", 24 << 30),
            ("80GB", 80_000_000_000),
            ("0.5MiB", 1 << 19),
            ("7", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "24 parsecs", "-3GiB", "0", "1.2.3G", "1e30TB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_short() {
        let cases = [
            (5, "5 B"),
            (1536, "1.50 KiB"),
            (24 << 30, "24.0 GiB"),
            (5 << 50, "5120.0 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(thousands(18_874_368), "18,874,368");
    }
}

//! Plain text.

use std::io::BufRead;
use std::path::Path;

use super::collect::Collector;
use super::{TextRows, open, unreadable, without_mark};
use crate::error::DataError;
use crate::fault::{Place, RowFault};
use crate::rows::{Row, RowFormat};

/// Reads the lines, paragraphs or the whole of a text.
pub(super) fn read(
    path: &Path,
    rows: TextRows,
    collector: &mut Collector<'_>,
) -> Result<(), DataError> {
    let mut paragraph = Vec::new();
    let mut first = 1;
    for (index, line) in open(path)?.split(b'\n').enumerate() {
        let line = line.map_err(|source| unreadable(path, source))?;
        let bytes = if index == 0 {
            without_mark(&line)
        } else {
            &line
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            let valid = std::str::from_utf8(bytes)
                .err()
                .map_or(0, |error| error.valid_up_to());
            collector.fault(Place::Line(index + 1), RowFault::NotUtf8(valid + 1));
            continue;
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        let is_blank = text.trim().is_empty();
        if is_blank && rows != TextRows::File {
            flush(&mut paragraph, first, collector);
            continue;
        }
        if paragraph.is_empty() {
            if is_blank {
                continue;
            }
            first = index + 1;
        }
        paragraph.push(text.to_string());
        if rows == TextRows::Line {
            flush(&mut paragraph, first, collector);
        }
    }
    flush(&mut paragraph, first, collector);
    Ok(())
}

fn flush(paragraph: &mut Vec<String>, first: usize, collector: &mut Collector<'_>) {
    while paragraph.last().is_some_and(|line| line.trim().is_empty()) {
        paragraph.pop();
    }
    if paragraph.is_empty() {
        return;
    }
    let text = paragraph.join("\n");
    paragraph.clear();
    collector.row(Place::Line(first), RowFormat::Text, Row::Text { text });
}

//! Gathers the rows of files, and all that is wrong with them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{ReadOptions, shared};
use crate::columns::{detect, no_format, rename};
use crate::error::DataError;
use crate::fault::{Faults, Place, RowFault};
use crate::label::Label;
use crate::parse::{Object, parse};
use crate::rows::{Placed, Row, RowFormat, Rows};

/// Rows so far.
pub(super) struct Collector<'a> {
    options: &'a ReadOptions,
    files: Vec<Arc<Path>>,
    rows: Vec<Placed>,
    faults: Faults,
    /// The format of the first good row, and its place.
    format: Option<(RowFormat, String)>,
    /// A row of another format.
    other: Option<(RowFormat, String)>,
    /// Labels of tables, which know text only.
    labels_are_text: bool,
}

impl<'a> Collector<'a> {
    pub(super) fn new(options: &'a ReadOptions) -> Self {
        Self {
            options,
            files: Vec::new(),
            rows: Vec::new(),
            faults: Faults::new(Path::new("")),
            format: None,
            other: None,
            labels_are_text: false,
        }
    }

    /// Goes on with a file.
    pub(super) fn file(&mut self, path: &Path) {
        if self.files.is_empty() {
            self.faults = Faults::new(path);
        }
        self.files.push(shared(path));
    }

    /// The rows of the current file are of a table.
    pub(super) fn labels_are_text(&mut self) {
        self.labels_are_text = true;
    }

    /// Whether the columns of a table can be rows, with the fault at `place` if not: told once, not for every row.
    pub(super) fn accepts(&mut self, columns: &[String], place: Place) -> bool {
        let pair = |name: &String| (name.clone(), Value::Null);
        let mut object: Object = columns.iter().map(pair).collect();
        let renamed = rename(&mut object, &self.options.columns);
        let format = renamed.and_then(|()| self.format_of(&object));
        match format {
            Ok(_) => true,
            Err(fault) => {
                self.fault(place, fault);
                false
            }
        }
    }

    /// Takes a row as its columns.
    pub(super) fn object(&mut self, place: Place, object: Result<Object, RowFault>) {
        let row = object.and_then(|mut object| {
            rename(&mut object, &self.options.columns)?;
            let format = self.format_of(&object)?;
            Ok((format, parse(object, format)?))
        });
        match row {
            Ok((format, row)) => self.row(place, format, row),
            Err(fault) => self.fault(place, fault),
        }
    }

    /// Takes a row.
    pub(super) fn row(&mut self, place: Place, format: RowFormat, row: Row) {
        let at = || format!("{}:{place}", self.current().display());
        match &self.format {
            None => self.format = Some((format, at())),
            Some((known, _)) if *known != format && self.other.is_none() => {
                self.other = Some((format, at()));
            }
            Some(_) => (),
        }
        self.rows.push(Placed {
            file: self.files.len().saturating_sub(1),
            place,
            row,
        });
    }

    /// Takes a fault.
    pub(super) fn fault(&mut self, place: Place, fault: RowFault) {
        let path = self.current().clone();
        self.faults.push(&path, place, fault);
    }

    /// The rows, if nothing is wrong with them.
    pub(super) fn finish(mut self) -> Result<Rows, DataError> {
        if !self.faults.is_empty() {
            return Err(DataError::Rows(self.faults));
        }
        if let (Some((first, first_place)), Some((other, other_place))) =
            (self.format.clone(), self.other.take())
        {
            return Err(DataError::MixedFormats {
                first,
                first_place,
                other,
                other_place,
            });
        }
        let Some((format, _)) = self.format else {
            let path = self.files.first().map(|path| path.to_path_buf());
            return Err(DataError::NoRows {
                path: path.unwrap_or_default(),
            });
        };
        if self.labels_are_text {
            numbers_for_text(&mut self.rows);
        }
        Ok(Rows::from_parts(self.files, self.rows, format))
    }

    fn current(&self) -> &Arc<Path> {
        // `file` comes before every row.
        &self.files[self.files.len() - 1]
    }

    fn format_of(&self, object: &Object) -> Result<RowFormat, RowFault> {
        let Some(format) = self.options.format else {
            let known = self.format.as_ref().map(|(format, _)| *format);
            return detect(object, known);
        };
        match detect(object, Some(format)) {
            Ok(found) if found == format => Ok(format),
            _ => Err(RowFault::NoFormat(no_format(object, Some(format)))),
        }
    }
}

/// Labels that are numbers in all rows of a table become numbers: classes if all are whole, values otherwise.
fn numbers_for_text(rows: &mut [Placed]) {
    fn labels(row: &mut Row) -> &mut [Label] {
        match row {
            Row::Classification { label, .. } => std::slice::from_mut(label),
            Row::Tagging { tags, .. } => tags,
            _ => &mut [],
        }
    }
    let all = |rows: &mut [Placed], number: &dyn Fn(&Label) -> Option<Label>| {
        let mut labels = rows.iter_mut().flat_map(|placed| labels(&mut placed.row));
        labels.all(|label| number(label).is_some())
    };
    let class = |label: &Label| match label {
        Label::Name(name) => name.trim().parse().ok().map(Label::Id),
        other => Some(other.clone()),
    };
    let value = |label: &Label| match label {
        Label::Name(name) => name.trim().parse().ok().map(Label::Value),
        Label::Id(id) => Some(Label::Value(*id as f64)),
        Label::Value(value) => Some(Label::Value(*value)),
    };
    let number: &dyn Fn(&Label) -> Option<Label> = match (all(rows, &class), all(rows, &value)) {
        (true, _) => &class,
        (_, true) => &value,
        _ => return,
    };
    for label in rows.iter_mut().flat_map(|placed| labels(&mut placed.row)) {
        if let Some(number) = number(label) {
            *label = number;
        }
    }
}

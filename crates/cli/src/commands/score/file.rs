//! A safetensors file that is written row by row: the logits of all rows are never in memory.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::unwritable;
use crate::failure::Failure;

/// A tensor with one slice for each row.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    dtype: &'static str,
    number_bytes: u64,
    /// The shape of a row.
    shape: Vec<usize>,
}

impl Column {
    /// int64.
    pub fn ints(name: &'static str, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name,
            dtype: "I64",
            number_bytes: 8,
            shape: shape.into(),
        }
    }

    /// float32. Floats follow the ints, so that every tensor is aligned.
    pub fn floats(name: &'static str, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name,
            dtype: "F32",
            number_bytes: 4,
            shape: shape.into(),
        }
    }

    fn row_bytes(&self) -> u64 {
        let sizes = self.shape.iter().map(|size| *size as u64);
        self.number_bytes * sizes.product::<u64>()
    }
}

/// The file, under a temporary name until it is whole.
#[derive(Debug)]
pub struct ScoreFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    /// Each with its place in the file.
    columns: Vec<(Column, u64)>,
    bytes: u64,
}

impl ScoreFile {
    /// Writes the header, and zeros for all that follows.
    pub fn create(path: &Path, rows: usize, columns: Vec<Column>) -> Result<Self, Failure> {
        let mut header = Map::new();
        // Transformers wants to know the format of a file's tensors.
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for column in &columns {
            let start = end;
            end += rows as u64 * column.row_bytes();
            let shape: Vec<usize> = [&[rows], column.shape.as_slice()].concat();
            let entry =
                json!({"dtype": column.dtype, "shape": shape, "data_offsets": [start, end]});
            header.insert(column.name.into(), entry);
        }
        let mut header = serde_json::Value::Object(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

        let mut place = 8 + header.len() as u64;
        let placed = columns.into_iter().map(|column| {
            let start = place;
            place += rows as u64 * column.row_bytes();
            (column, start)
        });
        let columns: Vec<(Column, u64)> = placed.collect();
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            file.set_len(place)?;
            Ok(file)
        };
        Ok(Self {
            file: write().map_err(|error| unwritable(path, &error))?,
            path: path.into(),
            partial,
            columns,
            bytes: place,
        })
    }

    /// Writes ints at the start of a row of a column; of one with two dimensions, at the start of the line `line` of it.
    pub fn ints(
        &mut self,
        name: &str,
        row: usize,
        line: usize,
        values: &[i64],
    ) -> Result<(), Failure> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let width = self.width(name);
        self.write(name, row, 8 * (line * width) as u64, &bytes)
    }

    /// Writes the whole row of a column of ints, with `padding` behind the values.
    pub fn filled(
        &mut self,
        name: &str,
        row: usize,
        values: &[u32],
        padding: i64,
    ) -> Result<(), Failure> {
        let mut whole: Vec<i64> = values.iter().map(|id| i64::from(*id)).collect();
        whole.resize(self.width(name).max(whole.len()), padding);
        self.ints(name, row, 0, &whole)
    }

    /// The last dimension of a column.
    fn width(&self, name: &str) -> usize {
        let mut columns = self.columns.iter();
        let found = columns.find(|(column, _)| column.name == name);
        found.map_or(0, |(column, _)| column.shape.last().copied().unwrap_or(1))
    }

    /// Writes floats to a row of a column, `skip` numbers after its start.
    pub fn floats(
        &mut self,
        name: &str,
        row: usize,
        skip: usize,
        values: &[f32],
    ) -> Result<(), Failure> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write(name, row, 4 * skip as u64, &bytes)
    }

    fn write(&mut self, name: &str, row: usize, skip: u64, bytes: &[u8]) -> Result<(), Failure> {
        let found = self.columns.iter().find(|(column, _)| column.name == name);
        let Some((column, start)) = found else {
            return Ok(());
        };
        let place = start + row as u64 * column.row_bytes() + skip;
        let written = self
            .file
            .seek(SeekFrom::Start(place))
            .and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| unwritable(&self.path, &error))
    }

    /// Gives the file its name, and returns its size.
    pub fn finish(mut self) -> Result<u64, Failure> {
        let partial = std::mem::take(&mut self.partial);
        let written = self.file.sync_all();
        let renamed = written.and_then(|()| fs::rename(&partial, &self.path));
        match renamed {
            Ok(()) => Ok(self.bytes),
            Err(error) => {
                self.partial = partial;
                Err(unwritable(&self.path, &error))
            }
        }
    }
}

impl Drop for ScoreFile {
    /// What is not finished is not left.
    fn drop(&mut self) {
        if !self.partial.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_rows_are_where_they_belong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let columns = vec![Column::ints("x", [3]), Column::floats("y", [3, 2])];
        let mut file = ScoreFile::create(&path, 2, columns).expect("created");
        file.ints("x", 1, 0, &[7, 8]).expect("written");
        file.floats("y", 0, 2, &[0.5, -1.0]).expect("written");
        let bytes = file.finish().expect("finished");
        let content = fs::read(&path).expect("read");
        assert_eq!(content.len() as u64, bytes);
        let file = SafeTensors::deserialize(&content).expect("safetensors");
        let x = file.tensor("x").expect("x");
        assert_eq!(x.shape(), [2, 3]);
        let expected: Vec<u8> = [0i64, 0, 0, 7, 8, 0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(x.data(), expected);
        let y = file.tensor("y").expect("y");
        assert_eq!(y.shape(), [2, 3, 2]);
        let expected = [0.0f32, 0.0, 0.5, -1.0, 0.0, 0.0];
        let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(y.data()[..24], expected);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_is_not_finished_is_not_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        drop(ScoreFile::create(&path, 1, vec![Column::ints("x", [1])]).expect("created"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}

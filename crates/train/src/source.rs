use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn_lora_data::{DataError, Example, ExampleStream};
use serde_json::Value;

use crate::loader::{BatchSource, BatchStream, seed_of};
use crate::task::Task;

/// Examples that come one after the other, without end, and are not all in memory.
pub trait ExampleSource<E>: Debug + Send {
    /// The next examples.
    ///
    /// # Errors
    /// What is wrong with them.
    fn take(&mut self, count: usize) -> Result<Vec<E>, DataError>;

    /// Where it stands, for a checkpoint.
    fn state(&self) -> Value;

    /// Goes on from where it stood.
    ///
    /// # Errors
    /// [`DataError::BadState`] for a state of other data.
    fn restore(&mut self, state: &Value) -> Result<(), DataError>;
}

impl ExampleSource<Example> for ExampleStream {
    fn take(&mut self, count: usize) -> Result<Vec<Example>, DataError> {
        Self::take(self, count)
    }

    fn state(&self) -> Value {
        // Numbers and lists have a form in JSON.
        serde_json::to_value(Self::state(self)).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<(), DataError> {
        let state = serde_json::from_value(state.clone());
        let state = state.map_err(|error| DataError::BadState(error.to_string()))?;
        Self::restore(self, &state)
    }
}

/// Whatever a checkpoint asks for the position of the data.
pub(crate) trait Position: Send + Sync {
    fn state(&self) -> Value;

    /// Why the last batch could not be made, which burn-train's error tells in words alone.
    fn fault(&self) -> Option<DataError>;
}

/// The batches of a source.
pub(crate) struct Streamed<M, T: Task<M>> {
    task: T,
    source: Mutex<Standing<T::Example>>,
    batch_size: usize,
    seed: u64,
    model: PhantomData<fn(&M)>,
}

struct Standing<E> {
    source: Box<dyn ExampleSource<E>>,
    /// The number of the next batch.
    next: usize,
    fault: Option<DataError>,
}

impl<M, T: Task<M>> Streamed<M, T> {
    /// Those of a source that stands before the batch `next` of the run.
    pub(crate) fn new(
        task: T,
        source: Box<dyn ExampleSource<T::Example>>,
        next: usize,
        batch_size: usize,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            task,
            source: Mutex::new(Standing {
                source,
                next,
                fault: None,
            }),
            batch_size,
            seed,
            model: PhantomData,
        })
    }

    fn standing(&self) -> MutexGuard<'_, Standing<T::Example>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self, number: usize, device: &Device) -> Result<T::Batch, DataError> {
        let mut standing = self.standing();
        if number != standing.next {
            let fault = format!(
                "batch {number} of a stream that stands at {}",
                standing.next
            );
            return Err(DataError::BadState(fault));
        }
        let examples = standing.source.take(self.batch_size)?;
        standing.next += 1;
        let rows: Vec<Vec<&T::Example>> = examples.iter().map(|one| vec![one]).collect();
        Ok(self.task.batch(&rows, seed_of(self.seed, number), device))
    }
}

impl<M, T: Task<M>> BatchSource<T::Batch> for Streamed<M, T> {
    fn starting_at<'a>(&'a self, first: usize, device: &'a Device) -> BatchStream<'a, T::Batch> {
        let batch = move |number| {
            self.batch(number, device).map_err(|fault| {
                let text = fault.to_string();
                self.standing().fault = Some(fault);
                DatasetError::new(std::io::Error::other(text))
            })
        };
        Box::new((first..).map(batch))
    }
}

impl<M, T: Task<M>> Position for Streamed<M, T> {
    fn state(&self) -> Value {
        self.standing().source.state()
    }

    fn fault(&self) -> Option<DataError> {
        self.standing().fault.take()
    }
}

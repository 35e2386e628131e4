use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

/// The panic hook is one per process, so probes take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Runs one tiny operation and waits for its result.
///
/// A GPU runtime opens its driver at the first operation and panics where there is none, possibly in a thread of its
/// own. The panic is caught and its first message kept from the terminal and returned.
pub(super) fn probe(device: &Device) -> Result<(), String> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let previous = panic::take_hook();
    panic::set_hook(Box::new({
        let said = said.clone();
        move |info| {
            let message = message(info.payload());
            said.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(message);
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(|| tiny_sum(device)));
    panic::set_hook(previous);

    match result {
        Ok(Ok(8.0)) => Ok(()),
        Ok(Ok(sum)) => Err(format!("a sum of eight ones came back as {sum}")),
        Ok(Err(reason)) => Err(reason),
        Err(payload) => {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let first = said.first().cloned();
            Err(one_line(
                &first.unwrap_or_else(|| message(payload.as_ref())),
            ))
        }
    }
}

fn tiny_sum(device: &Device) -> Result<f32, String> {
    let sum = Tensor::<1>::ones([8], device)
        .sum()
        .try_into_scalar::<f32>()
        .map_err(|error| error.to_string())?;
    device.sync().map_err(|error| error.to_string())?;
    Ok(sum)
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "its runtime panicked without a message".to_string())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_message_becomes_one_line() {
        let payload: Box<dyn Any + Send> = Box::new("no\n  adapter".to_string());
        assert_eq!(one_line(&message(payload.as_ref())), "no adapter");
        let payload: Box<dyn Any + Send> = Box::new("no driver");
        assert_eq!(message(payload.as_ref()), "no driver");
    }
}

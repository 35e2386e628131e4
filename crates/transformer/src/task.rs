//! What a model does, in PEFT's words.

use burn_lora_adapter::PEFT_HEADS;

/// What PEFT is told of a model beside what is trained.
pub trait PeftTask {
    /// PEFT's `task_type`, where it has a word for the task.
    fn task_type(&self) -> Option<&'static str>;
}

/// Tasks with a head that PEFT trains with whatever else is trained, and saves beside it.
const WITH_HEAD: [&str; 2] = ["SEQ_CLS", "TOKEN_CLS"];

/// The modules that PEFT saves as a whole for a task: the heads, whichever of the two a model has.
pub(crate) fn heads_of(task_type: Option<&str>) -> Vec<String> {
    match task_type {
        Some(task) if WITH_HEAD.contains(&task) => PEFT_HEADS.map(String::from).into(),
        _ => Vec::new(),
    }
}

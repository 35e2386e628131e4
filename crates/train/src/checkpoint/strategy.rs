use std::collections::VecDeque;

use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;

use super::Checkpoints;

/// Saves every so many steps and at the end, and keeps the last few.
pub(crate) struct EverySteps {
    pub(super) checkpoints: Checkpoints,
    pub(super) saved: VecDeque<usize>,
}

impl EverySteps {
    pub(super) fn actions(&mut self, interval: usize) -> Vec<CheckpointingAction> {
        let Checkpoints {
            steps,
            save_every,
            keep,
            ..
        } = self.checkpoints;
        let step = self.checkpoints.step_of(interval);
        if !step.is_multiple_of(save_every) && step != steps {
            return Vec::new();
        }
        self.saved.push_back(interval);
        let surplus = self.saved.len().saturating_sub(keep);
        let mut actions = vec![CheckpointingAction::Save];
        actions.extend(self.saved.drain(..surplus).map(CheckpointingAction::Delete));
        actions
    }
}

impl CheckpointingStrategy for EverySteps {
    fn checkpointing(
        &mut self,
        interval: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        self.actions(interval)
    }
}

use super::VirtualTokens;
use crate::named::Named;
use crate::part_methods::PART_MODULES;
use crate::slot::{Held, Slot};

/// PEFT's name of the part that holds virtual tokens.
const PROMPT_ENCODER: &str = PART_MODULES[0];

/// Virtual tokens under their path, `prompt_encoder.NAME`.
pub(crate) type NamedTokens = Named<VirtualTokens>;

/// Where a model holds its virtual tokens.
pub(crate) type TokenSlot = Slot<NamedTokens>;

impl NamedTokens {
    pub(super) fn under(name: &str, tokens: VirtualTokens) -> Self {
        Self::new(format!("{PROMPT_ENCODER}.{name}"), tokens)
    }
}

impl Held for NamedTokens {
    fn name(&self) -> &str {
        let path = Named::name(self).split_once('.');
        path.map_or("", |(_, name)| name)
    }

    fn renamed(self, to: &str) -> Self {
        Self::under(to, self.into_inner())
    }
}

impl TokenSlot {
    /// How many places the rows of a batch need in front: as many as the longest of what acts.
    pub(crate) fn count(&self) -> usize {
        let counts = self.acting().into_iter().map(|tokens| tokens.count());
        counts.max().unwrap_or(0)
    }
}

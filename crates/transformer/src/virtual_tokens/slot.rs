use super::{VirtualTokens, VirtualTokensError};
use crate::named::{Named, Siblings, unnamed_module};
use crate::nearest::{hint, nearest};
use crate::part_methods::PART_MODULES;

/// PEFT's name of the part that holds virtual tokens.
const PROMPT_ENCODER: &str = PART_MODULES[0];

/// Where a model holds its virtual tokens: several under names, of which at most one acts.
#[derive(Debug, Clone)]
pub struct Slot {
    held: Siblings<Named<VirtualTokens>>,
    chosen: Option<String>,
    enabled: bool,
}

unnamed_module!(Slot { held } with { chosen, enabled });

/// The path of virtual tokens in a model.
fn path(name: &str) -> String {
    format!("{PROMPT_ENCODER}.{name}")
}

impl Slot {
    pub(crate) fn empty() -> Self {
        Self {
            held: Siblings(Vec::new()),
            chosen: None,
            enabled: true,
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let paths = self.held.iter().map(Named::name);
        let names = paths.filter_map(|path| path.split_once('.'));
        names.map(|(_, name)| name).collect()
    }

    /// The virtual tokens that act while they are enabled.
    pub(super) fn chosen(&self) -> Option<&VirtualTokens> {
        let path = path(self.chosen.as_deref()?);
        let held = self.held.iter().find(|held| held.name() == path);
        held.map(|held| &**held)
    }

    /// The virtual tokens that are computed with.
    pub(crate) fn active(&self) -> Option<&VirtualTokens> {
        self.chosen().filter(|_| self.enabled)
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.active().map_or(0, VirtualTokens::count)
    }

    /// With these under a name, in the place of any, to act.
    pub(super) fn with(mut self, name: &str, tokens: VirtualTokens) -> Self {
        let held = Named::new(path(name), tokens);
        match self.held.iter().position(|held| held.name() == path(name)) {
            Some(place) => self.held.0[place] = held,
            None => self.held.0.push(held),
        }
        self.activate(name)
    }

    pub(super) fn activate(mut self, name: &str) -> Self {
        self.chosen = Some(name.to_string());
        self
    }

    pub(super) fn rename(mut self, from: &str, to: &str) -> Self {
        let renamed = |held: Named<VirtualTokens>| match held.name() == path(from) {
            true => Named::new(path(to), held.into_inner()),
            false => held,
        };
        self.held = Siblings(self.held.0.into_iter().map(renamed).collect());
        if self.chosen.as_deref() == Some(from) {
            self.chosen = Some(to.to_string());
        }
        self
    }

    pub(super) fn delete(mut self, name: &str) -> Self {
        self.held.0.retain(|held| held.name() != path(name));
        self.chosen = self.chosen.filter(|chosen| chosen != name);
        self
    }

    pub(super) fn emptied(self) -> Self {
        Self {
            enabled: self.enabled,
            ..Self::empty()
        }
    }

    pub(super) fn enabled(self, enabled: bool) -> Self {
        Self { enabled, ..self }
    }

    pub(super) fn check_known(&self, name: &str) -> Result<(), VirtualTokensError> {
        let names = self.names();
        if names.contains(&name) {
            return Ok(());
        }
        let near = hint(nearest(name, names.iter().copied()).as_ref());
        let there = names.join(", ");
        refused(format!(
            "there are none called \"{name}\"{near}; there are: {there}"
        ))
    }

    pub(super) fn check_new(&self, name: &str) -> Result<(), VirtualTokensError> {
        if self.names().contains(&name) {
            return refused(format!("there are some called \"{name}\" already"));
        }
        if name.is_empty() || name.contains('.') {
            return refused(format!("\"{name}\" is no name: it is empty or has a dot"));
        }
        Ok(())
    }
}

fn refused(fault: String) -> Result<(), VirtualTokensError> {
    let faults = vec![fault];
    Err(VirtualTokensError::Config { faults })
}

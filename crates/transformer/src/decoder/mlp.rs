use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_adapter::{project, project_together};

use super::plan::{MlpForm, MlpPlan};
use super::scope::Scope;
use crate::activation::Activation;
use crate::named::{Named, unnamed_module};

/// The inner layer of a block, or an expert.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    /// `[d_model, d_inner]`, unless the form has none of its own.
    pub(crate) gate: Option<Named<Linear>>,
    /// `[d_model, d_inner]`, twice as wide where it holds the gate, too.
    pub(crate) up: Named<Linear>,
    /// `[d_inner, d_model]`
    pub(crate) down: Named<Linear>,
    form: MlpForm,
    activation: Activation,
}

unnamed_module!(Mlp { gate, up, down } with { form, activation });

/// The names of an inner layer's parts.
pub(crate) struct MlpNames {
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl Mlp {
    pub(crate) fn build(
        plan: MlpPlan,
        d_model: usize,
        names: &MlpNames,
        scope: &mut Scope<'_, '_>,
    ) -> Self {
        let MlpPlan { d_inner, bias, .. } = plan;
        let is_gated = plan.form == MlpForm::Gated;
        let width = match plan.form {
            MlpForm::GatedFused => 2 * d_inner,
            MlpForm::Plain | MlpForm::Gated => d_inner,
        };
        let gate = is_gated.then(|| scope.linear(names.gate, [d_model, width], bias));
        let up = scope.linear(names.up, [d_model, width], bias);
        let (gate, up) = match gate {
            Some(gate) => {
                let [gate, up] = scope.side_by_side([gate, up]);
                (Some(gate), up)
            }
            None => (None, up),
        };
        Self {
            gate,
            up,
            down: scope.residual_linear(names.down, [d_inner, d_model], bias),
            form: plan.form,
            activation: plan.activation,
        }
    }

    /// # Shapes
    ///
    /// - x, output: `[..., d_model]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let y = match &self.gate {
            Some(gate) => self.gated(gate, x),
            None if self.form == MlpForm::GatedFused => {
                self.activation.gate_halves(project(&self.up, x))
            }
            None => self.activation.apply(project(&self.up, x)),
        }; // [..., d_inner]
        project(&self.down, y)
    }

    fn gated<const D: usize>(&self, gate: &Linear, x: Tensor<D>) -> Tensor<D> {
        let layers: [&Linear; 2] = [gate, &self.up];
        let has_halves = self.activation.has_halves();
        let together = has_halves.then(|| project_together(&layers, &x));
        match together.flatten() {
            Some(both) => self.activation.gate_halves(both),
            None => {
                let gate = project(gate, x.clone());
                self.activation.gate(gate, project(&self.up, x))
            }
        }
    }
}

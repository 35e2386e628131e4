use std::collections::HashSet;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Flag, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param,
};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::saved::is_saved;
use crate::sites::Path;
use crate::summary::trained_of_base;

/// A module of which visitors and mappers see the adapter parameters only, and what of the base is trained beside them: the
/// [modules](crate::LoraConfig::modules_to_save) and [biases](crate::LoraConfig::trained_biases) that
/// [`attach`](crate::attach) left unfrozen.
///
/// Optimizers, records, checkpoints and parameter counts walk a module by `visit` and `map`: through this wrapper they
/// meet nothing of the base, so no optimizer state and no checkpoint byte can belong to it. Paths are those of the
/// module itself; what works on adapters by their weights ([`merge`](crate::merge), [`peft::save`](crate::peft::save)) is
/// for the [`inner`](Self::inner) module, which shows the weights. Everything else, device moves and the switch between
/// training and validation among it, concerns the whole module.
#[derive(Clone, Debug)]
pub struct AdapterOnly<M> {
    module: M,
    shown: Shown,
}

/// Which parameters of the base are shown.
#[derive(Clone, Debug)]
struct Shown {
    /// By their paths, those that were trained when the module was wrapped.
    trained: Arc<HashSet<String>>,
    /// By the ends of their modules' paths.
    saved: Vec<String>,
}

impl<M: Module> AdapterOnly<M> {
    /// Wraps a module as it is: what of its base is frozen later is shown all the same.
    pub fn new(module: M) -> Self {
        let trained = trained_of_base(&module).into_iter().collect();
        let shown = Shown {
            trained: Arc::new(trained),
            saved: Vec::new(),
        };
        Self { module, shown }
    }
}

impl<M> AdapterOnly<M> {
    /// Shows these modules, too, although they are frozen.
    pub fn with_saved_modules<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.shown.saved = names.into_iter().map(Into::into).collect();
        self
    }

    fn with(&self, module: M) -> Self {
        let shown = self.shown.clone();
        Self { module, shown }
    }

    /// With another module.
    pub fn map_inner<N>(self, change: impl FnOnce(M) -> N) -> AdapterOnly<N> {
        AdapterOnly {
            module: change(self.module),
            shown: self.shown,
        }
    }

    /// The whole module.
    pub fn inner(&self) -> &M {
        &self.module
    }

    /// Takes the whole module out.
    pub fn into_inner(self) -> M {
        self.module
    }
}

impl<M: Module> Module for AdapterOnly<M> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.module.visit(&mut Filter::new(visitor, &self.shown));
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        let module = self.module.map(&mut Filter::new(mapper, &self.shown));
        Self { module, ..self }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.module.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        let module = self.module.fork(device);
        Self { module, ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        let module = self.module.to_device(device);
        Self { module, ..self }
    }

    fn train(self) -> Self {
        let module = self.module.train();
        Self { module, ..self }
    }

    fn valid(&self) -> Self {
        self.with(self.module.valid())
    }

    fn materialize(self) -> Self {
        let module = self.module.materialize();
        Self { module, ..self }
    }
}

impl<M: ModuleDisplay> ModuleDisplayDefault for AdapterOnly<M> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add("module", &self.module).optional()
    }
}

impl<M: ModuleDisplay> ModuleDisplay for AdapterOnly<M> {}

/// Passes on what lies inside a reparameterization or is trained beside one, and every path.
struct Filter<'a, W> {
    walker: &'a mut W,
    path: Path,
    shown: &'a Shown,
}

impl<'a, W> Filter<'a, W> {
    fn new(walker: &'a mut W, shown: &'a Shown) -> Self {
        Self {
            walker,
            path: Path::default(),
            shown,
        }
    }

    /// Whether the current parameter is to be seen.
    fn shows(&self) -> bool {
        if self.path.in_reparameterization() {
            return true;
        }
        let path = self.path.join();
        self.shown.trained.contains(&path) || is_saved(&path, &self.shown.saved)
    }
}

impl<V: ModuleVisitor> ModuleVisitor for Filter<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
        self.walker.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.path.exit();
        self.walker.exit_module(name, container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.shows() {
            self.walker.visit_float(param);
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        if self.shows() {
            self.walker.visit_int(param);
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        if self.shows() {
            self.walker.visit_bool(param);
        }
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        if self.shows() {
            self.walker.visit_flag(flag);
        }
    }
}

impl<T: ModuleMapper> ModuleMapper for Filter<'_, T> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
        self.walker.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.path.exit();
        self.walker.exit_module(name, container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.shows() {
            true => self.walker.map_float(param),
            false => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        match self.shows() {
            true => self.walker.map_int(param),
            false => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        match self.shows() {
            true => self.walker.map_bool(param),
            false => param,
        }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        match self.shows() {
            true => self.walker.map_flag(flag),
            false => flag,
        }
    }
}

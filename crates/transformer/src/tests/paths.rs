use super::*;
use burn::module::{Module, ModuleVisitor, Param};

#[derive(Default)]
pub(super) struct Paths {
    path: Vec<String>,
    pub(super) found: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.found.push(self.path.join("."));
    }
}

#[test]
fn the_path_of_a_parameter_is_its_name_in_the_checkpoint() {
    for (name, decoder) in decoders() {
        let mut paths = Paths::default();
        decoder.visit(&mut paths);
        let mut keys: Vec<String> = Decoder::keys(&decoder.config(), &Device::flex())
            .into_iter()
            .map(|key| key.path)
            .collect();
        paths.found.sort();
        keys.sort();
        assert_eq!(paths.found, keys, "{name}");
    }
    let mut paths = Paths::default();
    decoders().remove(0).1.visit(&mut paths);
    let known = "model.layers.1.self_attn.k_proj.weight".to_owned();
    assert!(paths.found.contains(&known));
}

#[test]
fn the_variant_is_transparent_to_module_methods() {
    for (name, decoder) in decoders() {
        let logits = decoder.logits(ids(&[&[1, 2]]));
        let same = decoder.clone().train().valid().to_device(&Device::flex());
        assert_close(name, same.logits(ids(&[&[1, 2]])), logits.clone(), 0.0);
        let record = decoder.clone().into_record();
        let other = Decoder::init(decoder.config(), &Device::flex(), 99).expect("valid");
        let restored = other.load_record(record);
        assert_close(name, restored.logits(ids(&[&[1, 2]])), logits, 0.0);
        assert_eq!(decoder.devices().len(), 1);
        assert!(decoder.to_string().contains("Linear"));
    }
    // 31 x 16 embedding, head and last norm; per layer 2 norms, q and o 16 x 24, k and v 16 x 12, 3 x 16 x 24.
    let expected = 2 * 31 * 16 + 16 + 2 * (2 * 16 + 2 * 16 * 24 + 2 * 16 * 12 + 3 * 16 * 24);
    assert_eq!(decoders().remove(0).1.num_params(), expected);
}

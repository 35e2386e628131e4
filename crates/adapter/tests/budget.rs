//! AdaLoRA's allocator: what it has learned goes through a checkpoint.

#![allow(clippy::unwrap_used)]

mod common;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_lora_adapter::budget::{AllocatorRecord, RankAllocator, orthogonality_penalty};
use burn_lora_adapter::{
    AdaLoraConfig, AdapterError, LoraConfig, Method, MethodConfig, Targets, adapted_weights, attach,
};

use common::{Golden, LAYERS, Two};

fn adapted(golden: &Golden) -> Two {
    let adalora = AdaLoraConfig {
        target_rank: 2,
        t_init: 1,
        t_final: 3,
        total_steps: 9,
        ..AdaLoraConfig::default()
    };
    let config = LoraConfig::new(4, 12.0)
        .with_targets(Targets::names(LAYERS))
        .with_method(MethodConfig::AdaLora(adalora));
    attach(golden.model(&Device::flex().autodiff()), "default", &config).unwrap()
}

/// Steps without any state but the module's and the allocator's.
fn steps(
    golden: &Golden,
    mut model: Two,
    allocator: &mut RankAllocator,
    steps: std::ops::Range<usize>,
) -> Two {
    let device = Device::flex().autodiff();
    let mut sgd: ModuleOptimizer = SgdConfig::new().init();
    for step in steps {
        let error = model.forward(golden.tensor("x", &device)) - golden.tensor("target", &device);
        let loss = (error.clone() * error).mean() + orthogonality_penalty(&model).unwrap();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        allocator.observe(&model, &gradients);
        model = sgd.step(0.3, model, gradients);
        model = allocator.allocate(model, step + 1);
    }
    model
}

fn numbers(model: &Two) -> Vec<Vec<u32>> {
    let bits = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect();
    let weights = adapted_weights(model).into_iter();
    let tensors = weights.flat_map(|weight| match weight.stack.method("default") {
        Some(Method::AdaLora(adalora)) => {
            [&adalora.a, &adalora.e, &adalora.b].map(|p| bits(p.val()))
        }
        other => panic!("{other:?}"),
    });
    tensors.collect()
}

#[test]
fn a_run_that_goes_on_from_a_record_is_the_uninterrupted_one_bit_for_bit() {
    let golden = Golden::read();
    // While the budget falls, and after it has fallen.
    for half_way in [3, 7] {
        let model = adapted(&golden);
        let mut allocator = RankAllocator::of(&model).unwrap();
        let half = steps(&golden, model, &mut allocator, 0..half_way);
        // As a checkpoint has it: text, and a module of other ids.
        let text = serde_json::to_string(&allocator.record(&half)).unwrap();
        let record: AllocatorRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(record.importance.len(), 6);
        let again = adapted(&golden).load_record(half.clone().into_record());
        assert_eq!(numbers(&again), numbers(&half));
        let whole = steps(&golden, half, &mut allocator, half_way..9);

        let mut resumed = RankAllocator::of(&again).unwrap();
        resumed.load_record(&again, &record).unwrap();
        assert_eq!(resumed.record(&again), record);
        let resumed = steps(&golden, again.clone(), &mut resumed, half_way..9);
        assert_eq!(numbers(&resumed), numbers(&whole));
        // The record matters: without it nothing would be taken any more.
        let mut forgetful = RankAllocator::of(&again).unwrap();
        let forgetful = steps(&golden, again, &mut forgetful, half_way..9);
        assert!(half_way < 6 || numbers(&forgetful) != numbers(&whole));
    }
}

#[test]
fn a_record_of_other_adapters_is_refused_with_every_fault() {
    let golden = Golden::read();
    let model = adapted(&golden);
    let mut allocator = RankAllocator::of(&model).unwrap();
    let model = steps(&golden, model, &mut allocator, 0..3);
    let good = allocator.record(&model);
    let mut record = good.clone();
    let taken = record.importance.remove("first.weight.e").unwrap();
    record.importance.insert("frist.weight.e".into(), taken);
    record
        .importance
        .get_mut("second.weight.a")
        .unwrap()
        .sensitivity
        .pop();
    record
        .importance
        .get_mut("second.weight.b")
        .unwrap()
        .uncertainty[0] = f32::NAN;
    record.kept.get_mut("first.weight").unwrap().pop();
    record.kept.insert("third.weight".into(), vec![true]);
    let Err(AdapterError::Config { faults }) = allocator.load_record(&model, &record) else {
        panic!("it was taken");
    };
    assert_eq!(faults.len(), 6, "{faults:?}");
    assert!(
        faults
            .iter()
            .any(|f| f.contains("frist.weight.e (nearest: first.weight.e)")),
        "{faults:?}"
    );
    assert!(
        faults
            .iter()
            .any(|f| f == "the record lacks first.weight.e"),
        "{faults:?}"
    );
    assert_eq!(allocator.record(&model), good, "nothing was changed");
}

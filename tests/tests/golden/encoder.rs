//! Encoders, each with the head of a task.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, peft, peft::PeftMetadata};
use burn_lora::transformer::{
    Encoder, EncoderBatch, EncoderWithHead, HeadTask, Labels, MaskedLm, MultipleChoice,
    SequenceClassifier, TokenClassifier,
};
use burn_lora_tests::{
    Golden, assert_close, assert_same, floats, gradients, largest_difference, on_each_device,
    parameters,
};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{GRADIENT, LOGITS, LOSS, STEPPED, stepped, values};

/// The rows of a question.
const CHOICES: usize = 2;
/// The label of a token that is not learned.
const IGNORED: i64 = -100;

/// The cases of a task, in `golden/encoders.py` under the names of the families.
const SEQUENCE: [&str; 9] = [
    "bert_sequence",
    "roberta_sequence",
    "xlm_roberta_sequence",
    "distilbert_sequence",
    "modernbert_sequence",
    "modernbert_biased_sequence",
    "deberta_sequence",
    "deberta_v2_sequence",
    "deberta_v3_sequence",
];
const VALUES: [&str; 2] = ["bert_regression", "bert_sets"];
const TOKEN: [&str; 5] = [
    "bert_token",
    "roberta_token",
    "distilbert_token",
    "modernbert_token",
    "deberta_v3_token",
];
const CHOICE: [&str; 5] = [
    "bert_choice",
    "roberta_choice",
    "distilbert_choice",
    "modernbert_choice",
    "deberta_v3_choice",
];
const MASKED: [&str; 12] = [
    "bert_masked",
    "roberta_masked",
    "distilbert_masked",
    "modernbert_masked",
    "deberta_masked",
    "deberta_v2_masked",
    "deberta_v3_masked",
    "bert_untied_masked",
    "roberta_untied_masked",
    "distilbert_untied_masked",
    "modernbert_untied_masked",
    "deberta_v2_untied_masked",
];

/// A model with a head as the cases try it.
trait Subject: Module {
    /// Its logits, row by row; those at padding left out.
    fn logits(&self, golden: &Golden, device: &Device) -> Tensor<2>;
    fn loss(&self, golden: &Golden, device: &Device) -> Tensor<1>;
}

fn batch(golden: &Golden, device: &Device) -> EncoderBatch {
    let batch = EncoderBatch::new(golden.input_ids(device), lengths(golden));
    match golden.has("token_type_ids") {
        true => {
            let shape = golden.shape("token_type_ids");
            let ids = TensorData::new(golden.ints("token_type_ids"), [shape[0], shape[1]]);
            batch.with_segments(Tensor::<2, Int>::from_data(ids, device))
        }
        false => batch,
    }
}

fn lengths(golden: &Golden) -> Vec<usize> {
    let width = golden.shape("attention_mask")[1];
    let mask = golden.ints("attention_mask");
    mask.chunks(width)
        .map(|row| row.iter().sum::<i64>() as usize)
        .collect()
}

/// What stands at tokens, `[tokens, d]`.
fn at_tokens(golden: &Golden, x: Tensor<3>) -> Tensor<2> {
    let rows = lengths(golden).into_iter().enumerate();
    let rows = rows.map(|(row, length)| {
        let tokens = x.clone().slice([row..row + 1, 0..length]);
        tokens.squeeze_dim::<2>(0)
    });
    Tensor::cat(rows.collect(), 0)
}

fn classes(golden: &Golden) -> Vec<usize> {
    let labels = golden.ints("labels").into_iter();
    labels.map(|label| label as usize).collect()
}

fn token_labels(golden: &Golden) -> Vec<Vec<Option<usize>>> {
    let width = golden.shape("labels")[1];
    let labels = golden.ints("labels");
    let rows = labels.chunks(width).zip(lengths(golden));
    let known = |label: &i64| (*label != IGNORED).then_some(*label as usize);
    rows.map(|(labels, length)| labels[..length].iter().map(known).collect())
        .collect()
}

impl Subject for SequenceClassifier {
    fn logits(&self, golden: &Golden, device: &Device) -> Tensor<2> {
        self.forward(&batch(golden, device))
    }

    fn loss(&self, golden: &Golden, device: &Device) -> Tensor<1> {
        let width = golden.shape("base.logits")[1];
        let rows = || {
            golden
                .floats("labels")
                .chunks(width)
                .map(Vec::from)
                .collect()
        };
        let labels = match golden.name {
            "bert_regression" => Labels::Values(rows()),
            "bert_sets" => Labels::Sets(rows()),
            _ => Labels::Classes(classes(golden)),
        };
        SequenceClassifier::loss(self, &batch(golden, device), &labels).unwrap()
    }
}

impl Subject for TokenClassifier {
    fn logits(&self, golden: &Golden, device: &Device) -> Tensor<2> {
        at_tokens(golden, self.forward(&batch(golden, device)))
    }

    fn loss(&self, golden: &Golden, device: &Device) -> Tensor<1> {
        TokenClassifier::loss(self, &batch(golden, device), &token_labels(golden)).unwrap()
    }
}

impl Subject for MultipleChoice {
    fn logits(&self, golden: &Golden, device: &Device) -> Tensor<2> {
        self.forward(&batch(golden, device), CHOICES)
    }

    fn loss(&self, golden: &Golden, device: &Device) -> Tensor<1> {
        let batch = batch(golden, device);
        MultipleChoice::loss(self, &batch, CHOICES, &classes(golden)).unwrap()
    }
}

impl Subject for MaskedLm {
    fn logits(&self, golden: &Golden, device: &Device) -> Tensor<2> {
        at_tokens(golden, self.forward(&batch(golden, device)))
    }

    fn loss(&self, golden: &Golden, device: &Device) -> Tensor<1> {
        MaskedLm::loss(self, &batch(golden, device), &token_labels(golden)).unwrap()
    }
}

fn base<T: HeadTask>(golden: &Golden, device: &Device) -> EncoderWithHead<T> {
    EncoderWithHead::load(&golden.model_folder(), device).unwrap()
}

fn with_adapter<T: HeadTask>(
    golden: &Golden,
    device: &Device,
    folder: &Path,
) -> EncoderWithHead<T> {
    let (model, _) = peft::load(base(golden, device), DEFAULT_NAME, folder).unwrap();
    model
}

/// The model under the adapter from which the gradients and the optimizer's steps were computed.
fn initial<T: HeadTask>(golden: &Golden, device: &Device) -> EncoderWithHead<T> {
    let scratch = tempfile::tempdir().unwrap();
    golden.write_adapter("init.weight/", scratch.path());
    with_adapter(golden, device, scratch.path())
}

fn assert_logits<M: Subject>(golden: &Golden, model: &M, device: &Device, stage: &str) {
    let expected = match golden.shape(&format!("{stage}.logits")).len() {
        3 => golden.at_tokens(&golden.floats(&format!("{stage}.logits"))),
        _ => golden.floats(&format!("{stage}.logits")),
    };
    let what = format!("{}: {stage} logits", golden.name);
    assert_close(
        &what,
        &floats(model.logits(golden, device)),
        &expected,
        LOGITS,
    );
    let what = format!("{}: {stage} loss", golden.name);
    let expected = golden.floats(&format!("{stage}.loss"));
    assert_close(&what, &floats(model.loss(golden, device)), &expected, LOSS);
}

fn base_matches<T: HeadTask>(cases: &[&'static str])
where
    EncoderWithHead<T>: Subject,
{
    on_each_device(|device| {
        for case in cases {
            let golden = Golden::open(case);
            let model = base::<T>(&golden, &device);
            assert!(model.fresh().is_empty(), "{case}: {:?}", model.fresh());
            let expected = golden.floats("base.hidden");
            let [rows, seq, d] = golden.shape("base.hidden")[..] else {
                panic!("hidden states have three dimensions")
            };
            let expected = Tensor::from_data(TensorData::new(expected, [rows, seq, d]), &device);
            let expected = floats(at_tokens(&golden, expected));
            let bare = Encoder::load(&golden.model_folder(), &device).unwrap();
            for encoder in [&*model.encoder, &bare] {
                let hidden = at_tokens(&golden, encoder.hidden(&batch(&golden, &device)));
                let what = format!("{case}: hidden states");
                assert_close(&what, &floats(hidden), &expected, LOGITS);
            }
            assert_logits(&golden, &model, &device, "base");
        }
    });
}

#[test]
fn sequences_match() {
    base_matches::<burn_lora::transformer::SequenceLabels>(&SEQUENCE);
    base_matches::<burn_lora::transformer::SequenceLabels>(&VALUES);
}

#[test]
fn tokens_match() {
    base_matches::<burn_lora::transformer::TokenLabels>(&TOKEN);
}

#[test]
fn choices_match() {
    base_matches::<burn_lora::transformer::Choices>(&CHOICE);
}

#[test]
fn masked_words_match() {
    base_matches::<burn_lora::transformer::MaskedTokens>(&MASKED);
}

/// Runs a check on every case that has an adapter.
macro_rules! on_adapted {
    ($check:ident) => {
        on_each_device(|device| {
            for case in SEQUENCE {
                $check::<burn_lora::transformer::SequenceLabels>(&Golden::open(case), &device);
            }
            let golden = Golden::open("bert_token");
            $check::<burn_lora::transformer::TokenLabels>(&golden, &device);
            for case in ["bert_masked", "bert_untied_masked"] {
                $check::<burn_lora::transformer::MaskedTokens>(&Golden::open(case), &device);
            }
        })
    };
}

#[test]
fn logits_of_an_adapter_trained_by_peft_match() {
    fn check<T: HeadTask>(golden: &Golden, device: &Device)
    where
        EncoderWithHead<T>: Subject,
    {
        let model = with_adapter::<T>(golden, device, &golden.adapter_folder());
        assert_logits(golden, &model, device, "trained");
    }
    on_adapted!(check);
}

#[test]
fn every_adapter_gradient_matches() {
    fn check<T: HeadTask>(golden: &Golden, device: &Device)
    where
        EncoderWithHead<T>: Subject,
    {
        let device = device.clone().autodiff();
        let model = initial::<T>(golden, &device);
        assert_logits(golden, &model, &device, "init");
        let loss = model.loss(golden, &device);
        let actual = gradients(&model, &loss.backward());
        let expected = golden.stage("init.grad/");
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}: which parameters have a gradient",
            golden.name
        );
        for (path, expected) in &expected {
            let actual = &actual[path];
            assert_eq!(actual.shape(), expected.shape(), "{path}");
            let what = format!("{}: gradient of {path}", golden.name);
            assert_close(&what, &values(actual), &values(expected), GRADIENT);
        }
    }
    on_adapted!(check);
}

#[test]
fn adapters_after_five_adamw_steps_match() {
    fn check<T: HeadTask>(golden: &Golden, device: &Device)
    where
        EncoderWithHead<T>: Subject,
    {
        let device = device.clone().autodiff();
        let start = initial::<T>(golden, &device);
        let (model, losses) = stepped(golden, start, |model| model.loss(golden, &device));
        let expected = golden.floats("adamw.losses");
        let what = format!("{}: losses", golden.name);
        assert_close(&what, &losses, &expected, 10.0 * LOSS);

        let actual = parameters(&model);
        let (start, expected) = (golden.stage("init.weight/"), golden.stage("adamw.weight/"));
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, expected) in &expected {
            let what = format!("{}: {path} after the steps", golden.name);
            assert_close(&what, &values(&actual[path]), &values(expected), STEPPED);
            let moved = largest_difference(&values(&start[path]), &values(expected));
            assert!(moved > 500.0 * STEPPED, "{what}: changed by {moved} only");
        }
    }
    on_adapted!(check);
}

#[test]
fn a_model_saved_here_loads_with_the_same_logits() {
    fn check<T: HeadTask>(golden: &Golden, device: &Device)
    where
        EncoderWithHead<T>: Subject,
    {
        let model = base::<T>(golden, device);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), DType::F32).unwrap();
        let again = EncoderWithHead::<T>::load(folder.path(), device).unwrap();
        let [expected, actual] = [&model, &again].map(|model| floats(model.logits(golden, device)));
        assert_same(golden.name, &actual, &expected);
    }
    on_adapted!(check);
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, as the decoders' test of this name does.
#[test]
fn exports_for_the_check_by_peft() {
    fn check<T: HeadTask>(golden: &Golden, device: &Device)
    where
        EncoderWithHead<T>: Subject + Whole,
    {
        let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
            || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
            PathBuf::from,
        );
        let folder = root.join(golden.name);
        let adapter = folder.join("adapter");
        let tracked = device.clone().autodiff();
        let start = initial::<T>(golden, &tracked);
        let (model, _) = stepped(golden, start, |model| model.loss(golden, &tracked));
        let model = model.into_inner().valid();
        let theirs = golden.adapter_folder();
        let (_, config) = peft::load(base::<T>(golden, device), DEFAULT_NAME, &theirs).unwrap();
        // With SEQ_CLS and TOKEN_CLS, PEFT looks for a trained head in the folder.
        let theirs = peft::read_config(&theirs).unwrap();
        let task = theirs
            .task_type
            .filter(|_| theirs.modules_to_save.is_some());
        let metadata = PeftMetadata {
            base_model_name_or_path: Some(golden.model_folder().display().to_string()),
            task_type: Some(task.unwrap_or_else(|| "FEATURE_EXTRACTION".to_string())),
            ..PeftMetadata::default()
        };
        peft::save(&model, DEFAULT_NAME, &config, &metadata, &adapter).unwrap();

        let written = model.whole(golden, device);
        let shape = golden.shape("base.logits");
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();

        let again = with_adapter::<T>(golden, device, &adapter);
        assert_same(golden.name, &again.whole(golden, device), &written);
    }
    on_adapted!(check);
}

/// Logits in the shape of the reference, padding included.
trait Whole {
    fn whole(&self, golden: &Golden, device: &Device) -> Vec<f32>;
}

impl Whole for SequenceClassifier {
    fn whole(&self, golden: &Golden, device: &Device) -> Vec<f32> {
        floats(self.forward(&batch(golden, device)))
    }
}

impl Whole for TokenClassifier {
    fn whole(&self, golden: &Golden, device: &Device) -> Vec<f32> {
        floats(self.forward(&batch(golden, device)))
    }
}

impl Whole for MaskedLm {
    fn whole(&self, golden: &Golden, device: &Device) -> Vec<f32> {
        floats(self.forward(&batch(golden, device)))
    }
}

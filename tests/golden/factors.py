"""What PEFT makes of initializations and combinations of LoRA on two linear layers, as dense numbers.

Writes `factors/reference.safetensors`. Signs of singular vectors are free, so it holds products: `<case>.<layer>.delta`, the
scaled product of the factors as `[in, out]`, and `<case>.<layer>.base`, the weight that is left. EVA's components are there as
the projection that they span, LoRA-GA's factors by their magnitudes.

    python factors.py            # write the file again
    python factors.py --verify   # compare with it (1e-4)
    python factors.py --check DIR  # load what burn-lora saved to DIR/own and DIR/portable, compare outputs (1e-4)
"""

import argparse
import copy
from pathlib import Path

import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.torch import load_file, save_file
from torch import nn

FILE = Path(__file__).parent / "factors" / "reference.safetensors"
LAYERS = ("first", "second")
RANK, ALPHA = 4, 12.0


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 14)
        self.second = nn.Linear(14, 9)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def config(**fields):
    return LoraConfig(**(dict(r=RANK, lora_alpha=ALPHA, target_modules=list(LAYERS)) | fields))


def lora(peft, name):
    return peft.base_model.model.get_submodule(name)


def written(case, peft, tensors):
    for name in LAYERS:
        layer = lora(peft, name)
        tensors[f"{case}.{name}.delta"] = layer.get_delta_weight("default").T
        tensors[f"{case}.{name}.base"] = layer.base_layer.weight.T


def initializations(model, x, target, tensors):
    for word in ("pissa", "pissa_niter_30", "olora"):
        torch.manual_seed(0)
        written(word, get_peft_model(copy.deepcopy(model), config(init_lora_weights=word)), tensors)

    for method in ("ipm", "kpm"):
        base = copy.deepcopy(model)
        corda = config(init_lora_weights="corda", corda_config=CordaConfig(corda_method=method))
        preprocess_corda(base, corda, run_model=lambda: [base(rows[None]) for rows in x.split(8)])
        written(f"corda_{method}", get_peft_model(base, corda), tensors)

    for direction, scale in (("ArB2r", "stable"), ("ArBr", "weight_svd"), ("A2rBr", "gd_scale")):
        base = copy.deepcopy(model)
        settings = LoraGAConfig(direction=direction, scale=scale)
        loraga = config(r=2, init_lora_weights="lora_ga", lora_ga_config=settings)
        # Four rows: the gradient has no more directions than the sketch.
        preprocess_loraga(base, loraga, lambda: ((base(x[:4]) - target[:4]) ** 2).mean().backward())
        torch.manual_seed(0)
        peft = get_peft_model(base, loraga)
        for name in LAYERS:
            layer = lora(peft, name)
            tensors[f"lora_ga_{direction}.{name}.a"] = layer.lora_A["default"].weight.T.abs()
            tensors[f"lora_ga_{direction}.{name}.b"] = layer.lora_B["default"].weight.T.abs()

    for rho in (1.0, 2.0):
        eva = config(r=3, init_lora_weights="eva", eva_config=EvaConfig(rho=rho))
        peft = get_peft_model(copy.deepcopy(model), eva)
        initialize_lora_eva_weights(
            peft,
            [x],
            forward_fn=lambda model, rows: model(rows),
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=None,
            show_progress_bar=False,
        )
        for name in LAYERS:
            layer = lora(peft, name)
            a = layer.lora_A["default"].weight  # [rank, in]
            tensors[f"eva_{rho:.0f}.{name}.span"] = a.T @ a
            tensors[f"eva_{rho:.0f}.{name}.scale"] = torch.tensor([layer.scaling["default"]])


def combinations(model, tensors):
    peft = get_peft_model(copy.deepcopy(model), config(), adapter_name="x")
    peft.add_adapter("y", config(lora_alpha=2.0))
    peft.add_adapter("z", config(r=2, lora_alpha=5.0))
    torch.manual_seed(5)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    for name in LAYERS:
        layer = lora(peft, name)
        for adapter in "xyz":
            tensors[f"adapter_{adapter}.{name}.a"] = layer.lora_A[adapter].weight.T
            tensors[f"adapter_{adapter}.{name}.b"] = layer.lora_B[adapter].weight.T
    density = dict(density=0.4)
    for kind, fields, weights in (
        ("linear", {}, (0.7, -1.3)),
        ("cat", {}, (0.7, -1.3)),
        ("cat", dict(adapters=("x", "z")), (0.7, -1.3)),
        ("svd", {}, (0.7, -1.3)),
        ("svd", dict(svd_rank=3, svd_clamp=0.9), (0.7, 0.5)),
        ("ties", density, (0.7, 1.3)),
        ("ties", density | dict(majority_sign_method="frequency"), (0.7, -1.3)),
        ("ties_svd", density, (0.7, 1.3)),
        ("magnitude_prune", density, (0.7, -1.3)),
        ("magnitude_prune_svd", density, (0.7, 1.3)),
        ("dare_linear", dict(density=1.0), (0.7, 1.3)),
        ("dare_ties", dict(density=1.0), (0.7, 1.3)),
    ):
        marks = [kind] + [str(value) for key, value in fields.items() if key in ("adapters", "svd_rank", "majority_sign_method")]
        case = "_".join(marks).translate(str.maketrans("", "", "(), '"))
        fields = dict(fields)
        adapters = list(fields.pop("adapters", ("x", "y")))
        peft.add_weighted_adapter(adapters, list(weights), case, combination_type=kind, **fields)
        for name in LAYERS:
            tensors[f"combined_{case}.{name}.delta"] = lora(peft, name).get_delta_weight(case).T


def make():
    torch.manual_seed(1)
    model = Two()
    # Inputs that vary in some directions far more than in others.
    x = torch.randn(48, 10) @ torch.diag(2.0 ** -torch.arange(10.0)) @ torch.linalg.qr(torch.randn(10, 10))[0] + 0.1
    target = torch.randn(48, 9)
    tensors = {"x": x, "target": target}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter
    initializations(model, x, target, tensors)
    combinations(model, tensors)
    return {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        for name in ("own", "portable"):
            folder = arguments.check / name
            model = Two()
            model.load_state_dict({key[6:]: value for key, value in load_file(FILE).items() if key.startswith("model.")})
            output = PeftModel.from_pretrained(model, folder).base_model.model(load_file(FILE)["x"])
            torch.testing.assert_close(output, load_file(folder / "output.safetensors")["output"], rtol=1e-4, atol=1e-4)
            print("ok", name)
        return
    made = make()
    if arguments.verify:
        kept = load_file(FILE)
        assert kept.keys() == made.keys(), kept.keys() ^ made.keys()
        for key, tensor in made.items():
            torch.testing.assert_close(tensor, kept[key], rtol=1e-4, atol=1e-4, msg=key)
    else:
        FILE.parent.mkdir(exist_ok=True)
        save_file(made, FILE)


if __name__ == "__main__":
    main()

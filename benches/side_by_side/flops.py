"""How much work a LoRA step is."""

from dataclasses import dataclass


@dataclass
class Layer:
    """A linear layer of a block."""

    name: str
    d_in: int
    d_out: int
    # Whether its input is the block's own.
    first: bool = False


@dataclass
class Sizes:
    """A shape in the words of no particular architecture."""

    d: int
    blocks: int
    heads: int
    vocab: int
    causal: bool
    layers: list


def sizes(shape):
    config = shape["config"]
    if config["model_type"] == "gpt2":
        d, inner = config["n_embd"], 4 * config["n_embd"]
        layers = [
            Layer("attn.c_attn", d, 3 * d, first=True),
            Layer("attn.c_proj", d, d),
            Layer("mlp.c_fc", d, inner),
            Layer("mlp.c_proj", inner, d),
        ]
        return Sizes(d, config["n_layer"], config["n_head"], config["vocab_size"], True, layers)
    d, inner = config["hidden_size"], config["intermediate_size"]
    blocks, heads, vocab = config["num_hidden_layers"], config["num_attention_heads"], config["vocab_size"]
    if config["model_type"] == "bert":
        names = ["attention.self.query", "attention.self.key", "attention.self.value"]
        layers = [Layer(name, d, d, first=True) for name in names]
        layers += [Layer("attention.output.dense", d, d)]
        layers += [Layer("intermediate.dense", d, inner), Layer("output.dense", inner, d)]
        return Sizes(d, blocks, heads, vocab, False, layers)
    assert config["model_type"] == "llama"
    d_kv = d // heads * config["num_key_value_heads"]
    widths = {"q": d, "k": d_kv, "v": d_kv}
    layers = [Layer(f"self_attn.{name}_proj", d, width, first=True) for name, width in widths.items()]
    layers += [Layer("self_attn.o_proj", d, d)]
    layers += [Layer("mlp.gate_proj", d, inner), Layer("mlp.up_proj", d, inner), Layer("mlp.down_proj", inner, d)]
    return Sizes(d, blocks, heads, vocab, True, layers)


def lora_step_flops(shape):
    """FLOPs of the matrix products that a LoRA step cannot do without.

    A product of `M x K` by `K x N` counts `2 M K N`. The frozen weights are in two products each, the forward one and the
    input's gradient; they have no gradient of their own. An adapter of rank r has `x A` and `(x A) B` forward; backward the
    gradients of B, of `x A`, of A, and of x. Attention has two products forward and four backward, over the pairs of
    positions that see each other: half of them and the diagonal under a causal mask. The head of a decoder is at learned
    positions only, one less than a row has. That of the encoder is the pooler and the classifier, which is trained.

    The first layers of the first block have no gradient of their input: below the first adapter nothing is differentiated.
    Nothing is computed twice, and elementwise work, norms and softmax are free.
    """
    size = sizes(shape)
    batch, seq, rank = shape["batch_size"], shape["seq_len"], shape["rank"]
    tokens = batch * seq
    flops = 0
    for block in range(size.blocks):
        for layer in size.layers:
            input_gradient = 0 if block == 0 and layer.first else 1
            flops += 2 * tokens * layer.d_in * layer.d_out * (1 + input_gradient)
            if any(layer.name == target or layer.name.endswith("." + target) for target in shape["targets"]):
                flops += 2 * tokens * layer.d_in * rank * (2 + input_gradient)
                flops += 2 * tokens * rank * layer.d_out * 3
    pairs = batch * seq * (seq + 1) // 2 if size.causal else batch * seq * seq
    # Of one product over all heads: the heads' widths add up to d.
    flops += size.blocks * 2 * pairs * size.d * (2 + 4)
    if size.causal:
        flops += 2 * batch * (seq - 1) * size.d * size.vocab * 2
    else:
        flops += 2 * batch * size.d * size.d * 2 + 2 * batch * size.d * shape["config"]["num_labels"] * 3
    return flops

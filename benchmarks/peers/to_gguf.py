"""A Llama checkpoint of `engines.model` as GGUF, weights of the type that it has. Runs in llama.cpp's environment:

python to_gguf.py CHECKPOINT FILE
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"embed_tokens.weight": "token_embd", "norm.weight": "output_norm", "lm_head.weight": "output"}


def tensors(path: Path):
    """(name, values in fp32, whether stored as bf16) of a safetensors file; numpy has no bf16."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            file.seek(8 + size + begin)
            data = file.read(end - begin)
            if about["dtype"] == "BF16":
                values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(data, np.float32)
            yield name, values.reshape(about["shape"]), about["dtype"] == "BF16"


def interleaved(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in llama.cpp's order, which rotates neighbours where transformers rotates halves."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def main() -> None:
    source, target = Path(sys.argv[1]), sys.argv[2]
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    out = gguf.GGUFWriter(target, "llama")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    out.add_vocab_size(config["vocab_size"])

    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    pads = [f"[PAD{i}]" for i in range(config["vocab_size"] - len(tokens))]
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens + pads)
    out.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(pads))
    out.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    out.add_eos_token_id(config["eos_token_id"])
    out.add_pad_token_id(config["pad_token_id"])
    out.add_add_bos_token(False)
    out.add_chat_template((source / "chat_template.jinja").read_text())

    kind = gguf.GGMLQuantizationType.BF16
    brief = False
    for name, x, brief in tensors(source / "model.safetensors"):
        name = name.removeprefix("model.")
        if name.startswith("layers."):
            _, layer, part = name.removesuffix(".weight").split(".", 2)
            if rotated := {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(part):
                x = interleaved(x, rotated)
            name = f"blk.{layer}.{NAMES[part]}"
        else:
            name = OUTER[name]
        if brief and x.ndim == 2:
            out.add_tensor(f"{name}.weight", gguf.quants.quantize(x, kind), raw_dtype=kind)
        else:
            out.add_tensor(f"{name}.weight", np.ascontiguousarray(x))
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if brief else gguf.LlamaFileType.ALL_F32)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()

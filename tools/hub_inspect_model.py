"""What a model of the Hugging Face Hub is, how good it is said to be, and what memory it takes."""

from typing import Any

from smolagents import Tool


class HubInspectModelTool(Tool):
    """Shows a model's make-up and works out what memory it takes to load and to fine-tune.

    One request tells whether it is there and at which commit; what belongs to a commit is fetched once. Parameters are
    counted by the Hub or in the headers of the safetensors files (a few kB of each); no weights are downloaded. Nothing
    is guessed in silence: what is not known is null and stands in `unknown`.
    """

    name = "hub_inspect_model"
    description = (
        "Shows what a model on the Hugging Face Hub is (card in brief, architecture, parameters, dtype, licence, context "
        "length, chat template, labels, reported evaluation results) and estimates the memory to load it and to "
        "fine-tune it (full, LoRA, QLoRA) at a sequence length and batch size. Read `unknown` and `warnings`."
    )
    inputs = {
        "model": {"type": "string", "description": "Such as 'Qwen/Qwen3-0.6B'."},
        "sequence_length": {
            "type": "integer",
            "description": "Tokens per example (default 1024, or all that it can read where that is less).",
            "nullable": True,
        },
        "batch_size": {"type": "integer", "description": "Examples on one device (default 1).", "nullable": True},
        "revision": {"type": "string", "description": "Branch, tag or commit (default main).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "id": {},
            "revision": {"description": "The commit."},
            "license": {},
            "gated": {},
            "private": {},
            "pipeline_tag": {"description": "Its task."},
            "library": {},
            "downloads": {},
            "likes": {},
            "last_modified": {},
            "architecture": {},
            "model_type": {},
            "parameters": {"type": ["integer", "null"]},
            "parameters_from": {"description": "How they were counted."},
            "dtype": {"description": "As stored."},
            "quantization": {},
            "context_length": {},
            "chat_template": {"type": ["boolean", "null"]},
            "vocab_size": {"description": "Rows of its embeddings."},
            "tokenizer_size": {
                "description": "The largest id of its tokenizer and one: more than `vocab_size` is a mismatch."
            },
            "hidden_size": {},
            "layers": {},
            "heads": {},
            "labels": {"description": "Of a classifier, in order."},
            "config": {"description": "Its plain values."},
            "base_models": {},
            "evaluation_results": {"description": "[{task, dataset, config, split, metric, value, verified, source}]"},
            "card": {"description": "{summary, sections, languages, datasets, papers}"},
            "files": {"description": "Format of weights to {files, bytes}."},
            "memory": {
                "description": "Estimates in GB (10^9 bytes) or null. {sequence_length, batch_size, load_gb, full_gb, "
                "lora_gb, qlora_gb, with_checkpointing: {full_gb, lora_gb, qlora_gb}, parts: {load, full, lora, qlora: "
                "{weights_gb, gradients_gb, optimizer_gb, activations_gb, kv_cache_gb, overhead_gb}}, lora_parameters, assumes}"
            },
            "unknown": {"description": "What could not be found out, and why."},
            "warnings": {},
        },
    }
    effects = "read"

    def forward(
        self,
        model: str,
        sequence_length: int | None = None,
        batch_size: int | None = 1,
        revision: str | None = None,
    ) -> dict:
        batch = 1 if batch_size is None else batch_size
        for name, value in (("sequence_length", sequence_length), ("batch_size", batch)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` is a whole number from 1 up, not {value!r}.")
        about = self._about(model.strip().strip("/"), revision or None)
        shape, parameters, unknown = about["shape"], about["parameters"], list(about["unknown"])
        length = sequence_length or min(1024, about["context_length"] or 1024)
        warnings = list(about["warnings"])
        if sequence_length and about["context_length"] and sequence_length > about["context_length"]:
            warnings.append(
                f"`sequence_length` is {sequence_length:,}, but it reads {about['context_length']:,} at most."
            )
        memory = self._memory(about, length, batch, unknown)
        kept = [key for key in self.output_schema["properties"] if key in about and key not in ("unknown", "warnings")]
        dimensions = {key: shape.get(key) for key in ("vocab_size", "hidden_size", "layers", "heads")}
        answer = {**{key: about[key] for key in kept}, "parameters": parameters, **dimensions}
        return {**answer, "memory": memory, "unknown": unknown, "warnings": warnings}

    def _about(self, model: str, revision: str | None) -> dict:
        """All that does not depend on lengths; what belongs to a commit is kept for a month."""
        from huggingface_hub import HfApi, get_token

        subject = f"model {model}" + (f" at {revision}" if revision else "")
        known = self._cache_key(self._hub(), get_token(), model, revision)
        kept = self._cached(known, 10)  # who asks twice at once compares lengths, not commits
        if kept is not None:
            return kept["data"]
        options = {"repo_id": model, "revision": revision, "files_metadata": True, "timeout": 20}
        info = self._ask(subject, 30, HfApi(endpoint=self._hub()).model_info, **options)
        inside = self._cache_key(self._hub(), get_token(), info.id, info.sha, "contents 2")
        found = self._cached(inside, 2_592_000)
        facts = found["data"] if found is not None else self._contents(info)
        about = {**facts, **self._standing(info), "warnings": list(facts["warnings"])}
        if info.gated:
            about["warnings"].append("The model is gated: its conditions bind you.")
        about["warnings"] += self._terms(about["license"])
        failed = [one for one in about["unknown"] if "The Hub (" in one]
        if not facts.get("refused") and not failed:  # access may be granted, or the Hub be itself again, any minute
            if found is None:
                self._cache(inside, facts)
            self._cache(known, about)
        return about

    def _terms(self, licence: Any) -> list:
        """What to warn of, as far as the name of a licence tells."""
        import re

        if licence is None:
            return ["No licence is stated: ask its author before you publish anything made from it."]
        # Names of licences for research alone: Mistral's (mnpl, mrl) and Apple's (amlr) among them.
        if re.search(r"\bnc\b|non-?commercial|\bmnpl\b|\bmrl\b|\bamlr\b|research", licence.lower()):
            return [
                f"The licence is {licence}: by its name it forbids commercial use; read its terms before you use it."
            ]
        if re.search(r"\b(other|unknown)\b|\bnd\b|rail|llama|gemma|deepfloyd|community|apple-ascl", licence.lower()):
            return [f"The licence is {licence}: read its terms before you use it."]
        return []

    def _standing(self, info: Any) -> dict:
        """What changes without a commit, and what the card's metadata says."""
        card = info.card_data.to_dict() if info.card_data else {}
        tags = info.tags or []
        stated = card.get("license")
        licences = [stated] if isinstance(stated, str) else stated or [t[8:] for t in tags if t.startswith("license:")]
        named = card.get("license_name")
        licence = ", ".join(licences) or None
        bases = card.get("base_model") or []
        return {
            "id": info.id,
            "revision": info.sha,
            "license": f"other ({named})" if licence == "other" and isinstance(named, str) else licence,
            "gated": bool(info.gated),
            "private": bool(info.private),
            "pipeline_tag": info.pipeline_tag,
            "library": info.library_name,
            "downloads": info.downloads,
            "likes": info.likes,
            "last_modified": info.last_modified.isoformat() if info.last_modified else None,
            "base_models": [bases] if isinstance(bases, str) else list(bases),
        }

    def _contents(self, info: Any) -> dict:
        """What the files of a commit say."""
        unknown, warnings = [], []
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        files: dict[str, Any] = {"unknown": unknown, "refused": False}
        wanted = ["config.json", "README.md", "adapter_config.json", "tokenizer_config.json", "model_index.json"]
        for name in [*wanted, "sentence_bert_config.json"]:
            files[name] = self._file(info, name, files) if name in sizes else None
        brief = info.config if isinstance(info.config, dict) else {}  # the Hub's own extract
        whole = self._json(files["config.json"], "config.json", unknown)
        config = whole or brief
        gguf = info.gguf if isinstance(info.gguf, dict) else {}
        quantized = self._inner(config).get("quantization_config")
        quantized = quantized if isinstance(quantized, dict) else {}
        tokenizer = self._json(files["tokenizer_config.json"], "tokenizer_config.json", unknown)
        known = brief.get("tokenizer_config")
        told = [where.get("chat_template") for where in (tokenizer, known, gguf) if isinstance(where, dict)]
        template = any(told) or bool({"chat_template.jinja", "chat_template.json"} & sizes.keys())
        if not template and files["refused"]:
            template = None
        shape, header = self._shape(config), {}
        if gguf and "width" not in shape:
            header = self._header(info, sizes, files)
            shape = self._shape(self._of_header(header)) if header else shape
        cut = self._json(files["sentence_bert_config.json"], "sentence_bert_config.json", unknown)
        limits = [self._context(config, tokenizer, gguf), self._number(cut, "max_seq_length")]
        if [name for name in ("vision_config", "audio_config") if isinstance(config.get(name), dict)]:
            unknown.append("Memory of activations of its vision or audio part: only the language part's are counted.")
        named = config.get("architectures") or brief.get("architectures")
        architecture = str(named[0]) if named and isinstance(named, list) else gguf.get("architecture")
        weights = self._weights(info, sizes, config, quantized, shape, unknown)
        adapter = self._json(files["adapter_config.json"], "adapter_config.json", unknown)
        if adapter:
            base = adapter.get("base_model_name_or_path") or "a model that it does not name"
            warnings.append(
                f"This is an adapter ({adapter.get('peft_type', 'PEFT')}) on {base}: inspect that as well."
            )
        if self._json(files["model_index.json"], "model_index.json", unknown):
            warnings.append("This is a pipeline of several models in folders: its memory is theirs together.")
        if config.get("auto_map"):
            warnings.append("It needs trust_remote_code: code of its repository runs on your machine. Read it first.")
        risky = [name for name in sizes if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        if risky and not [name for name in sizes if name.endswith((".safetensors", ".gguf", ".onnx"))]:
            warnings.append(f"Its weights are pickles ({risky[0]}), which can run code as they are loaded.")
        names = config.get("id2label")
        labels = None
        if isinstance(names, dict) and names:
            numbered = not [key for key in names if not str(key).isdigit()]
            labels = [str(names[key]) for key in (sorted(names, key=int) if numbered else names)][:200]
        return {
            "architecture": architecture,
            "model_type": config.get("model_type") or gguf.get("architecture"),
            **weights,
            "quantization": self._quantization(quantized) or ("gguf" if gguf else None),
            "context_length": min([limit for limit in limits if limit], default=None),
            "chat_template": template,
            "tokenizer_size": self._tokens(info, sizes, files, tokenizer, unknown),
            "labels": labels,
            "config": self._plain(config),
            "evaluation_results": self._results(info, sizes, unknown),
            "card": self._card(info, files["README.md"]),
            "shape": shape,
            "causal": str(architecture).endswith(
                ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForVision2Seq", "ForImageTextToText")
            )
            or (bool(gguf) and not named and "bert" not in str(architecture) and header.get("causal") is not False),
            "adapter": bool(adapter),
            "refused": files["refused"],
            "unknown": unknown,
            "warnings": warnings,
        }

    def _plain(self, config: dict) -> dict:
        """The values of a configuration that are not told elsewhere and stand on a line; 60 at most."""
        inner = self._inner(config)
        told = ("_name_or_path", "model_type", "dtype", "torch_dtype", "transformers_version", "vocab_size")
        plain = {
            key: value for key, value in inner.items() if isinstance(value, str | int | float) and key not in told
        }
        return dict(list({key: value for key, value in plain.items() if len(str(value)) <= 100}.items())[:60])

    def _tokens(self, info: Any, sizes: dict, files: dict, stated: dict, unknown: list) -> int | None:
        """The largest id that its tokenizer knows and one; `None` where it has none, or none that is read within 20 MB."""
        there = [name for name in ("tokenizer.json", "vocab.json", "vocab.txt") if name in sizes]
        name = next(iter([name for name in there if sizes[name] <= 20_000_000]), None)
        if name is None:
            others = [name for name in sizes if name.endswith((".model", ".tiktoken"))]
            if there or others:
                unknown.append(f"tokenizer_size: of {(there + others)[0]} nothing is read but its name.")
            return None
        content = self._file(info, name, files, 20_000_000)
        if content is None:
            return None
        added = stated.get("added_tokens_decoder")
        ids = [int(one) for one in added if str(one).isdigit()] if isinstance(added, dict) else []
        if name == "tokenizer.json":
            whole = self._json(content, name, unknown)
            model, more = whole.get("model"), whole.get("added_tokens")
            vocab = model.get("vocab") if isinstance(model, dict) else None
            ids = [one.get("id") for one in more if isinstance(one, dict)] if isinstance(more, list) else []
            ids += (
                list(vocab.values())
                if isinstance(vocab, dict)
                else [len(vocab) - 1]
                if isinstance(vocab, list)
                else []
            )
        elif name == "vocab.json":
            ids += list(self._json(content, name, unknown).values())
        else:
            ids.append(len(content.splitlines()) - 1)
        numbers = [one for one in ids if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31]
        return max(numbers) + 1 if numbers else None

    def _file(self, info: Any, path: str, state: dict, most: int = 4_000_000) -> bytes | None:
        """A small file at the commit; `None` where its gate is shut, which is said once."""
        if state["refused"] and path != "README.md":
            return None
        where = {"model": info.id, "revision": info.sha, "path": path, "most": most}
        try:
            return self._ask(f"{path} of model {info.id}", 30, self._read, **where)
        except PermissionError as error:
            if not state["refused"]:
                state["unknown"].append(f"What only its files say: {error}")
            state["refused"] = True
        return None

    def _read(self, model: str, revision: str, path: str, most: int = 4_000_000) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(model, path, revision=revision, endpoint=self._hub())
        content = bytearray()
        # Redirects to other hosts lose the token: the client's HTTP library sees to that.
        with http_stream_backoff(
            "GET",
            url,
            headers=build_hf_headers(),
            timeout=20,
            max_retries=1,
            retry_on_status_codes=(502, 503, 504),
            retry_on_exceptions=(),
        ) as response:
            hf_raise_for_status(response)
            if "html" in response.headers.get("Content-Type", ""):
                raise TypeError("a web page")
            for chunk in response.iter_bytes(100_000):
                content += chunk
                if len(content) > most:
                    break
        return bytes(content)

    def _json(self, content: bytes | None, path: str, unknown: list) -> dict:
        import json

        if content is None:
            return {}
        try:
            value = json.loads(content)
        except ValueError as error:  # in the repository; the Hub's own answers are looked at as they come
            unknown.append(f"What {path} says: it is no JSON ({error}).")
            return {}
        return value if isinstance(value, dict) else {}

    def _weights(self, info: Any, sizes: dict, config: dict, quantized: dict, shape: dict, unknown: list) -> dict:
        """Parameters, how they were counted, their type as stored, and bytes: by the Hub, else from headers, else from
        the size of the files, else from the configuration."""
        import re

        stated = self._inner(config).get("dtype") or self._inner(config).get("torch_dtype")
        stated = stated if isinstance(stated, str) else None
        each = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}.get(stated or "", 0)
        answer: dict[str, Any] = {"files": self._formats(sizes), "dtype": stated}
        counts, how = {}, "the Hub's count of the safetensors files"
        if info.safetensors and info.safetensors.parameters:
            counts = dict(info.safetensors.parameters)
        else:
            counts, how = self._headers(info, sizes, unknown)
        if counts:
            here = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
            stored = sum([sizes[name] for name in here if not name.startswith("consolidated")])
            return {**answer, **self._counted(counts, how, quantized, stored)}
        gguf = info.gguf if isinstance(info.gguf, dict) else {}
        if isinstance(gguf.get("total"), int):
            least, names = self._least_gguf(sizes)
            unknown.append("Memory to fine-tune: GGUF is for running. Fine-tune the model that it was made from.")
            beside = [name for name in sizes if "mmproj" in name.lower() and name.endswith(".gguf")]
            if beside:
                size = min([sizes[name] for name in beside]) / 1e9
                unknown.append(
                    f"Memory of its part for images or sound: {beside[0]} ({size:.2f} GB or more) is on top."
                )
            how = "the Hub's reading of the GGUF"
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                how += f"; loading is that of the smallest, {names[0]}{more}"
            else:
                unknown.append("Memory to load: no GGUF of a model is there in all its parts.")
            return {**answer, "parameters": gguf["total"], "parameters_from": how, "bytes": least}
        pickles = sum(
            [size for name, size in sizes.items() if re.fullmatch(r"pytorch_model(-\d+-of-\d+)?\.bin", name)]
        )
        if pickles:
            how = f"the size of the PyTorch files at {each or 4} bytes each" + ("" if each else " (dtype not stated)")
            return {**answer, "parameters": pickles // (each or 4), "parameters_from": how, "bytes": pickles}
        if "width" in shape and shape["vocab_size"] and "adapter_config.json" not in sizes:
            total = self._linear(shape)[0] + shape["vocab_size"] * shape["hidden_size"] * (1 if shape["tied"] else 2)
            how = "its configuration (estimated: no weights could be counted)"
            return {**answer, "parameters": total, "parameters_from": how, "bytes": total * (each or 2)}
        unknown.append("Parameters: no weights that can be counted without downloading them.")
        return {**answer, "parameters": None, "parameters_from": None, "bytes": None}

    def _least_gguf(self, sizes: dict) -> tuple:
        """The smallest model in GGUF: its bytes, and its files, the parts of one together and in order."""
        import re

        groups: dict[str, Any] = {}
        for name in sorted(sizes):
            # What projects images, and statistics for quantizing, are no models.
            plain = name.lower().rpartition("/")[2]
            if not plain.endswith(".gguf") or re.search(r"mmproj|^imatrix|[-_.]imatrix\.gguf$", plain):
                continue
            part = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", name)
            group = groups.setdefault(
                part[1] + part[2] if part else name, {"names": [], "of": int(part[2]) if part else 1}
            )
            group["names"].append(name)
        whole = [one["names"] for one in groups.values() if len(one["names"]) == one["of"]]
        sized = sorted([(sum([sizes[name] for name in names]), names) for names in whole])
        sized = [one for one in sized if one[0]]  # the Hub does not tell all sizes
        return sized[0] if sized else (None, [])

    def _header(self, info: Any, sizes: dict, state: dict) -> dict:
        """What the beginning of the smallest GGUF says of its dimensions, by their names there; empty where it says none."""
        names = self._least_gguf(sizes)[1]
        if not names:
            return {}
        try:
            content = self._file(info, names[0], state, 100_000)
        except (OSError, ValueError) as error:
            state["unknown"].append(f"What the beginning of {names[0]} says: {error}")
            return {}
        values = self._pairs(content or b"")
        family = f"{values.get('general.architecture')}."
        found = {key.removeprefix(family): value for key, value in values.items() if key.startswith(family)}
        found["causal"] = found.get("attention.causal")
        return {**found, "vocab_size": values.get("tokenizer.ggml.tokens") or found.get("vocab_size")}

    def _of_header(self, header: dict) -> dict:
        """The same under the names that configurations have."""
        names = {"hidden_size": "embedding_length", "num_hidden_layers": "block_count", "vocab_size": "vocab_size"}
        names |= {"num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv"}
        names |= {"head_dim": "attention.key_length", "intermediate_size": "feed_forward_length"}
        names |= {"kv_lora_rank": "attention.kv_lora_rank", "qk_rope_head_dim": "rope.dimension_count"}
        return {ours: header[theirs] for ours, theirs in names.items() if header.get(theirs) is not None}

    def _pairs(self, content: bytes) -> dict:
        """Keys and values at the beginning of a GGUF file, as far as it reaches: of a list of numbers the mean, rounded up,
        and of a list of texts how many there are."""
        import struct

        kinds = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
        found: dict[str, Any] = {}
        if content[:4] != b"GGUF":
            return found
        try:
            (pairs,) = struct.unpack_from("<Q", content, 16)
            at = 24
            for _ in range(min(pairs, 1000)):
                (size,) = struct.unpack_from("<Q", content, at)
                key, at = content[at + 8 : at + 8 + size].decode(errors="replace"), at + 8 + size
                (kind,) = struct.unpack_from("<I", content, at)
                at, many, values = at + 4, kind == 9, list[Any]()
                kind, count = struct.unpack_from("<IQ", content, at) if many else (kind, 1)
                at += 12 if many else 0
                if many and kind == 8:
                    found[key] = count
                for _ in range(count):
                    if kind == 8:
                        (size,) = struct.unpack_from("<Q", content, at)
                        values.append(content[at + 8 : at + 8 + size].decode(errors="replace"))
                        at += 8 + size
                    else:
                        values.append(struct.unpack_from(kinds[kind], content, at)[0])
                        at += struct.calcsize(kinds[kind])
                if not many:
                    found[key] = values[0]
                elif kind != 8 and values:
                    found[key] = int(-(-sum(values) // len(values)))
        except (struct.error, OverflowError, ValueError, KeyError):  # its end was not fetched, or it is no such file
            return found
        return found

    def _formats(self, sizes: dict) -> dict:
        """Files of weights and their bytes by format."""
        import re

        formats: dict[str, Any] = {}
        kinds = {"bin": "pytorch", "pt": "pytorch", "pth": "pytorch", "h5": "tensorflow", "msgpack": "flax"}
        kinds |= {"safetensors": "safetensors", "gguf": "gguf", "onnx": "onnx"}
        for name, size in sizes.items():
            kind = kinds.get(name.rpartition(".")[2])
            if kind and not re.search(r"(training_args|optimizer|scheduler|rng_state)", name):
                entry = formats.setdefault(kind, {"files": 0, "bytes": 0})
                entry["files"], entry["bytes"] = entry["files"] + 1, entry["bytes"] + size
        return formats

    def _counted(self, counts: dict, how: str, quantized: dict, stored: int) -> dict:
        """What numbers of each type come to. Quantized weights lie packed in whole numbers, several in one; the Hub
        counts them one by one, or as they lie, which the size of the files tells."""
        width: dict[str, float] = {
            "F64": 8,
            "I64": 8,
            "U64": 8,
            "F32": 4,
            "I32": 4,
            "U32": 4,
            "F16": 2,
            "BF16": 2,
            "I16": 2,
            "U16": 2,
        }
        width |= {"F4": 0.5}
        named = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64", "I8": "int8", "U8": "uint8"}
        named |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I32": "int32", "F4": "float4"}
        heavy = {kind: count * width.get(kind, 1) for kind, count in counts.items()}
        common = max(heavy, key=heavy.__getitem__)
        bits = quantized.get("bits") or quantized.get("w_bit") or (4 if self._four(quantized) else None)
        # Whole numbers that are not packed weights are buffers, such as positions.
        total = sum([count for kind, count in counts.items() if kind.startswith(("F", "BF"))])
        packed = [kind for kind in ("I32", "U32", "U8", "I8") if quantized and kind in counts]
        size = sum(heavy.values())
        unpacked = "Hub" in how and 0 < 1.2 * stored < size
        for kind in packed:
            room = int(8 * width.get(kind, 1))
            several = isinstance(bits, int) and 0 < bits < room and not unpacked
            total += counts[kind] * (room // bits if several else 1)
        if packed:
            how += ", weights counted one by one (approximate)"
            size = min(size, stored) or size
        about = {"parameters": total or sum(counts.values()), "parameters_from": how, "bytes": size}
        return {**about, "dtype": named.get(common, common)}

    def _headers(self, info: Any, sizes: dict, unknown: list) -> tuple:
        """Numbers by type out of the headers of up to 100 safetensors files, fetched by range."""
        import re
        from collections import Counter

        from huggingface_hub import errors

        here = sorted([name for name in sizes if re.fullmatch(r"[^/]+\.safetensors", name)])
        shards = [name for name in here if re.search(r"(?<!consolidated)-\d+-of-\d+\.safetensors$", name)]
        paths = [name for name in here if name in ("model.safetensors", "adapter_model.safetensors")][:1]
        paths = paths or [name for name in shards if name.startswith("model-")] or shards or here[:1]
        if not paths or len(paths) > 100:
            unknown += [f"Parameters: {len(paths)} files of weights are more than are looked into."] if paths else []
            return {}, None
        counts = Counter()
        try:
            subject = f"the headers of the weights of model {info.id}"
            found = self._ask(subject, 60, self._parsed, model=info.id, revision=info.sha, paths=paths)
        except (PermissionError, errors.SafetensorsParsingError) as error:
            unknown.append(f"Parameters: {str(error).splitlines()[0][:300]}")
            return {}, None
        for one in found:
            counts.update(one.parameter_count)
        return dict(counts), f"the headers of {len(paths)} safetensors file{'s' if len(paths) > 1 else ''}"

    def _parsed(self, model: str, revision: str, paths: list) -> list:
        from concurrent.futures import ThreadPoolExecutor
        from functools import partial

        from huggingface_hub import HfApi

        read = partial(HfApi(endpoint=self._hub()).parse_safetensors_file_metadata, model, revision=revision)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(read, paths))

    def _four(self, quantized: dict) -> bool:
        method = str(quantized.get("quant_method", ""))
        groups = quantized.get("config_groups") or {}
        bits = [((one or {}).get("weights") or {}).get("num_bits") for one in groups.values()]
        return bool(quantized.get("load_in_4bit")) or method in ("mxfp4", "awq") or 4 in bits

    def _quantization(self, quantized: dict) -> str | None:
        if not quantized:
            return None
        method = str(quantized.get("quant_method") or "unnamed")
        bits = quantized.get("bits") or quantized.get("w_bit")
        bits = bits or (4 if self._four(quantized) else 8 if quantized.get("load_in_8bit") else None)
        return f"{method}, {bits} bits" if bits else method

    def _context(self, config: dict, tokenizer: dict, gguf: dict) -> int | None:
        inner = self._inner(config)
        names = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
        found = [inner[name] for name in names if isinstance(inner.get(name), int) and inner[name] > 0]
        if found:
            # RoBERTa and its kin count from two: 514 positions are 512 tokens.
            odd = inner.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
            return found[0] - 2 if odd and found[0] % 64 == 2 else found[0]
        if isinstance(gguf.get("context_length"), int):
            return gguf["context_length"]
        most = tokenizer.get("model_max_length")
        return int(most) if isinstance(most, int | float) and 0 < most < 10**8 else None

    def _inner(self, config: dict) -> dict:
        """The part of a configuration that describes the language model, where there are several."""
        for name in ("text_config", "llm_config", "language_config"):
            if isinstance(config.get(name), dict):
                return {**config, **config[name]}
        thinker = config.get("thinker_config")
        return self._inner(thinker) if isinstance(thinker, dict) else config

    def _number(self, config: dict, names: str) -> int | None:
        """The first of these, if it is a whole number from 1 up."""
        found = [config[name] for name in names.split() if isinstance(config.get(name), int)]
        return found[0] if found and found[0] > 0 and not isinstance(found[0], bool) else None

    def _shape(self, config: dict) -> dict:
        """The dimensions that memory depends on, under one name each; few where they are not stated as numbers."""
        inner = self._inner(config)
        kind, cross = str(inner.get("model_type")), 0
        hidden = self._number(inner, "hidden_size n_embd d_model dim model_dim")
        layers = self._number(inner, "num_hidden_layers n_layer n_layers num_layers encoder_layers")
        heads = self._number(inner, "num_attention_heads n_head n_heads num_heads encoder_attention_heads")
        vocab = self._number(inner, "vocab_size")
        if inner.get("is_encoder_decoder") and layers:
            cross = self._number(inner, "num_decoder_layers decoder_layers") or layers
            layers += cross
        shape: dict = {"vocab_size": vocab, "hidden_size": hidden, "layers": layers, "heads": heads}
        if not (hidden and layers and heads):
            return shape
        keys = self._number(inner, "num_key_value_heads n_head_kv num_kv_heads") or heads
        wide = self._number(inner, "intermediate_size n_inner ffn_dim d_ff encoder_ffn_dim hidden_dim ffn_hidden_size")
        act = str(inner.get("hidden_act") or inner.get("hidden_activation") or inner.get("feed_forward_proj") or "")
        plain = kind in ("gpt2", "starcoder2", "falcon", "phi", "gpt_neox", "opt", "bloom", "nemotron")
        gated = not plain and (act in ("silu", "swish") or "gated" in act or "gemma" in kind or kind == "modernbert")
        experts = self._number(inner, "num_local_experts num_experts n_routed_experts")
        if experts:
            width = self._number(inner, "moe_intermediate_size expert_ffn_hidden_size") or wide or 4 * hidden
            active = self._number(inner, "num_experts_per_tok num_experts_per_token") or 2
            shape |= {"experts": experts, "active": active, "expert_width": width}
        image, patch = self._number(inner, "image_size"), self._number(inner, "patch_size")
        kinds = inner.get("layer_types") or []
        kinds = [str(one) for one in kinds] if isinstance(kinds, list) else []
        slides = bool(kinds) or kind in ("mistral", "mixtral")
        window = self._number(inner, "sliding_window") if slides else None
        sliding = len([one for one in kinds if "sliding" in one]) if kinds else (layers if window else 0)
        linear = len([one for one in kinds if "linear" in one or "mamba" in one or one == "conv"])
        rank = self._number(inner, "kv_lora_rank")
        if rank:  # DeepSeek's latent attention keeps one vector a token instead of keys and values
            shape["latent"] = rank + (self._number(inner, "qk_rope_head_dim") or 0)
        return shape | {
            "head_dim": self._number(inner, "head_dim d_kv") or hidden // heads,
            "kv_heads": 1 if inner.get("multi_query") is True else keys,
            "cross": cross,
            "tied": inner.get("tie_word_embeddings") is not False,
            "width": wide or 4 * hidden,
            "gated": gated,
            "composed": act in ("gelu_new", "gelu_fast") or inner.get("activation_function") == "gelu_new",
            "window": window,
            "sliding": sliding,
            "linear": linear,
            "patches": (image // patch) ** 2 + 1 if image and patch and not vocab else None,
        }

    def _memory(self, about: dict, length: int, batch: int, unknown: list) -> dict:
        """GB to load and to fine-tune on one device. Activations are within a tenth of what PyTorch keeps for Llama,
        GPT-2 and BERT; the rest is arithmetic. Packing, attention that is not fused, and fragmentation come on top.

        Full: mixed precision with AdamW keeps 16 bytes a parameter (arXiv:1910.02054, 3.1): here 4 of weights, 4 of
        gradients, 8 of the optimizer, and 2 of the copy that autocast makes. LoRA: the base frozen at 16 bits, and 16
        bytes for each parameter of adapters of rank 16 on all linear layers of the blocks (arXiv:2106.09685, 4.1). QLoRA:
        those layers at 4 bits and 0.127 bits of constants (arXiv:2305.14314, 3), embeddings and head at 16.
        Activations: 14h + 4k + 4w bytes a token and layer (h hidden, k the keys' width, w the feed-forward's), which for
        k = h and w = 4h is the 34h of arXiv:2205.05198, equation 2, without the attention matrix, which fused attention
        does not keep; 8w where the feed-forward is gated, 10w for a GELU put together from parts; 8h where norms run in
        32 bits, and twice that where they are RMS norms under autocast. With checkpointing: what goes from layer to
        layer, and all of one. The loss of a language model keeps its logits and their gradients in 16 and 32 bits: 12
        bytes a token and word. Cache: 4k bytes a token and layer.
        """
        shape, parameters = about["shape"], about["parameters"]
        memory: dict[str, Any] = {"sequence_length": length, "batch_size": batch}
        memory |= dict.fromkeys(("load_gb", "full_gb", "lora_gb", "qlora_gb"))
        assumed = "one device, AdamW, bfloat16 by autocast (full) or frozen (LoRA and QLoRA, rank 16), fused attention"
        memory |= {"with_checkpointing": {}, "parts": {}, "lora_parameters": None, "assumes": assumed}
        if about["adapter"]:
            unknown.append("Memory: an adapter's is that of its base model, so inspect that one.")
            return memory
        known = "width" in shape
        h, layers = shape.get("hidden_size"), shape.get("layers")
        tokens = batch * (shape.get("patches") or length)
        cache = None
        if known and about["causal"]:
            each = shape.get("latent") or 2 * shape["kv_heads"] * shape["head_dim"]
            far = layers - shape["sliding"] - shape["linear"]
            near = shape["sliding"] * min(length, shape["window"] or length)
            cache = 2 * each * batch * (far * length + near)
        elif about["architecture"] and not about["causal"]:
            cache = 0
        if not known:
            unknown.append("Memory of activations and cache: its configuration does not state its dimensions.")
        if about["bytes"] is not None:
            self._sum(memory, "load", {"weights": about["bytes"], "kv_cache": cache})
        if parameters is None or "gguf" in str(about["quantization"]):
            return memory
        if about["quantization"]:
            unknown.append(
                "Memory of full and LoRA fine-tuning: its weights are quantized; inspect those it was made from."
            )
            if "4 bits" not in about["quantization"] or "bitsandbytes" not in about["quantization"]:
                return memory
        loss = 12 * tokens * shape["vocab_size"] if known and about["causal"] and shape["vocab_size"] else 0
        whole = {bits: self._kept(shape, bits) * tokens if known else None for bits in (32, 16)}
        least = {bits: (bits // 8) * h * tokens if known else None for bits in (32, 16)}
        linear, adapters = self._linear(shape) if known else (None, None)
        memory["lora_parameters"] = adapters
        plans = {}  # bytes of weights, parameters that learn, bits of the weights
        if not about["quantization"]:
            plans["full"] = (6 * parameters, parameters, 32)
        if adapters and not about["quantization"]:
            plans["lora"] = (2 * parameters + 4 * adapters, adapters, 16)
        if adapters:
            linear = min(linear or 0, parameters)
            small = linear * (4 + 0.127) / 8 + 2 * (parameters - linear)
            plans["qlora"] = (small + 4 * adapters, adapters, 16)
        for name, plan in plans.items():
            weights, learnt, bits = plan
            parts = {"weights": weights, "gradients": 4 * learnt, "optimizer": 8 * learnt}
            acts = None if whole[bits] is None else layers * whole[bits] + loss
            self._sum(memory, name, {**parts, "activations": acts})
            if acts is not None:
                fewer = layers * least[bits] + whole[bits] + loss
                total = sum([*parts.values(), fewer]) / 1e9 + 1
                memory["with_checkpointing"][name + "_gb"] = round(total, 2)
        return memory

    def _sum(self, memory: dict, name: str, parts: dict) -> None:
        shown = {part + "_gb": None if size is None else round(size / 1e9, 3) for part, size in parts.items()}
        # The context of the device, its libraries' work space: about a gigabyte, whatever the model.
        memory["parts"][name] = {**shown, "overhead_gb": 1.0}
        if None not in parts.values():
            memory[name + "_gb"] = round(sum(parts.values()) / 1e9 + 1, 2)

    def _kept(self, shape: dict, bits: int) -> int:
        """Bytes that a layer keeps of each token for the backward pass, where weights have so many bits."""
        h, k = shape["hidden_size"], shape["kv_heads"] * shape["head_dim"]
        w = shape["active"] * shape["expert_width"] if shape.get("experts") else shape["width"]
        norms = (16 if bits == 32 else 8) if shape["gated"] else (8 if bits == 32 else 0)
        return (14 + norms) * h + 4 * k + (8 if shape["gated"] else 10 if shape["composed"] else 4) * w

    def _linear(self, shape: dict) -> tuple:
        """Parameters of the blocks' linear layers, and of adapters of rank 16 on them (on attention alone for experts)."""
        h, q, k = shape["hidden_size"], shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
        matrices = [(h, q), (h, k), (h, k), (q, h)]
        wide = shape["expert_width"] if shape.get("experts") else shape["width"]
        forward = [(h, wide)] * (2 if shape["gated"] else 1) + [(wide, h)]
        adapted = matrices if shape.get("experts") else matrices + forward
        crossing = [(h, q), (h, k), (h, k), (q, h)] * shape["cross"]  # from a decoder to its encoder
        size = sum([a * b for a, b in matrices]) + sum([a * b for a, b in forward]) * shape.get("experts", 1)
        size = shape["layers"] * size + sum([a * b for a, b in crossing])
        return size, 16 * (shape["layers"] * sum([a + b for a, b in adapted]) + sum([a + b for a, b in crossing]))

    def _results(self, info: Any, sizes: dict, unknown: list) -> list:
        """Evaluation results as the card's model-index and the files in .eval_results state them, 50 at most."""
        found = []
        index = info.model_index or (info.card_data.to_dict() if info.card_data else {}).get("model-index")
        for entry in index if isinstance(index, list) else []:
            for result in entry.get("results") or []:
                data, source = result.get("dataset") or {}, result.get("source") or {}
                for metric in result.get("metrics") or []:
                    found.append(
                        {
                            "task": (result.get("task") or {}).get("type"),
                            "dataset": data.get("type") or data.get("name"),
                            "config": data.get("config"),
                            "split": data.get("split"),
                            "metric": metric.get("type") or metric.get("name"),
                            "value": metric.get("value"),
                            "verified": bool(metric.get("verified")),
                            "source": source.get("url"),
                        }
                    )
        if [name for name in sizes if name.startswith(".eval_results/")]:
            try:
                subject = f"the evaluation results of model {info.id}"
                found += self._ask(subject, 30, self._newer, model=info.id, revision=info.sha)
            except (ConnectionError, ValueError) as error:
                unknown.append(f"Evaluation results in .eval_results: {error}")
        return found[:50]

    def _newer(self, model: str, revision: str) -> list:
        """What `expand=evalResults` gives: rows as in the files, those in error left out."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = f"{self._hub()}/api/models/{model}/revision/{revision}"
        response = get_session().get(url, params={"expand": ["evalResults"]}, headers=build_hf_headers(), timeout=20)
        hf_raise_for_status(response)
        rows = []
        for item in response.json().get("evalResults") or []:
            entry = item.get("data", item)
            data, source = entry.get("dataset") or {}, entry.get("source") or {}
            if "error" not in item and "value" in entry:
                row = {"task": data.get("task_id"), "dataset": data.get("id"), "config": None, "split": None}
                row |= {"metric": entry.get("notes"), "value": entry["value"], "source": source.get("url")}
                rows.append({**row, "verified": bool(entry.get("verifyToken"))})
        return rows

    def _card(self, info: Any, content: bytes | None) -> dict:
        """What the card says first, its headings, and what its metadata names."""
        import re

        fields = info.card_data.to_dict() if info.card_data else {}
        text = (content or b"").decode("utf-8-sig", errors="replace")
        text = re.sub(r"\A---\s*\n.*?\n---\s*(\n|\Z)", "", text, count=1, flags=re.S)
        text = re.sub(r"<!--.*?-->|```.*?(```|\Z)", "", text, flags=re.S)
        sections = [" ".join(line.strip("# \t").split()) for line in text.split("\n") if re.match(r"#{1,4}\s", line)]
        prose = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]*>|^\s*[|>#].*$", "", text, flags=re.M)
        prose = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).split())
        listed = {key: fields.get(key) or [] for key in ("language", "datasets")}
        listed = {key: [value] if isinstance(value, str) else list(value) for key, value in listed.items()}
        papers = [tag[6:] for tag in info.tags or [] if tag.startswith("arxiv:")]
        cut = prose if len(prose) <= 800 else prose[:800].rpartition(" ")[0] + "…"
        about = {"summary": cut, "sections": sections[:30], "languages": listed["language"][:30]}
        return {**about, "datasets": listed["datasets"][:30], "papers": papers[:10]}

    # Shared: hub
    def _hub(self) -> str:
        import os

        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def _ask(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """Calls the Hub's client; what goes wrong becomes one or two lines and the nearest builtin error.

        The client sets no time-out on most calls, repeats failing ones for half a minute and sleeps for as long as a
        `Retry-After` says: so each call gets a thread, left behind after `seconds`. Where the Hub limits requests and asks
        for half a minute or less, the call is made again after that, twice at most. The same in every tool of the Hub.
        """
        import json
        import queue
        import threading
        import time

        from huggingface_hub import errors

        ends, tries, wait = time.monotonic() + seconds, 0, ""
        while tries < 3:
            answers = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(answers, call, arguments), daemon=True).start()
            try:
                answer, error = answers.get(timeout=max(ends - time.monotonic(), 0))
            except queue.Empty:
                answer, error = None, TimeoutError(f"no end after {seconds:.0f} s")
            if error is None:
                return answer
            if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
                error = error.__cause__  # "not in the cache" hides why the Hub did not give it
            tries, wait = tries + 1, self._limited(error)
            pause = max(int(wait), 0.5) if wait.isdigit() else 3600
            if pause > 30 or time.monotonic() + pause >= ends or tries == 3:
                break
            time.sleep(pause)
        status, said, kind = 0, str(error).strip().split("\n")[0][:200], ConnectionError
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            said = f"{status}: {(error.server_message or said).splitlines()[0][:200]}"
        if isinstance(error, errors.GatedRepoError):
            kind, text = (
                PermissionError,
                f"gates {subject}. Accept its conditions on its page as the owner of HF_TOKEN.",
            )
        elif isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
            kind, text = FileNotFoundError, f"has no such revision or file of {subject} ({said}). Check `revision`."
        elif isinstance(error, errors.RepositoryNotFoundError):
            kind, text = FileNotFoundError, f"knows no {subject}, or hides it from you ({status}). "
            text += "Check its name and type; if it is private, set an HF_TOKEN that may read it."
        elif isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            kind, text = PermissionError, f"refused {subject} ({said}). Set an HF_TOKEN that is valid and allowed to."
        elif status == 429:
            text = (
                f"limits your requests (429) at {subject}. Try again {f'after {wait} seconds' if wait else 'later'}."
            )
        elif status >= 500:
            text = f"failed at {subject} ({said}). Try again in a minute."
        elif status:
            kind, text = ValueError, f"rejected {subject} ({said}). Change the arguments."
        elif isinstance(error, TimeoutError):
            kind, text = (
                TimeoutError,
                f"hangs, or holds back, {subject} ({said}). Check that it is up, then try again.",
            )
        elif isinstance(error, errors.HTTPError):  # httpx's in huggingface_hub 1.x, httpx2's in 2.x
            text = f"cannot be reached, or broke off, at {subject} ({type(error).__name__}: {said}). "
            text += "Check the network and HF_ENDPOINT, then try again."
        elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError | TypeError | AttributeError):
            text = f"answered {subject} with something else than its API's JSON ({said}). "
            text += "Is HF_ENDPOINT a Hub, with no proxy or login page before it?"
        else:
            raise error
        raise kind(f"The Hub ({self._hub()}) {text}") from error

    def _limited(self, error: Any) -> str:
        """The seconds that the Hub asks to wait where it limits requests, or when; empty where it does not say."""
        import re

        answer: Any = getattr(error, "response", None)
        if getattr(answer, "status_code", 0) != 429:
            return ""
        waits = re.findall(r"\bt=(\d+)", answer.headers.get("RateLimit", ""))  # the Hub's own way to say it
        return str(answer.headers.get("Retry-After") or "".join(waits[:1]))

    def _work(self, answers: Any, call: Any, arguments: dict) -> None:
        try:
            answers.put((call(**arguments), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))

    # End of shared: hub

    # Shared: cache
    def _cache_key(self, address: str, token: str | None, *asked: Any) -> str:
        """The name of an answer: a digest of who was asked, for whom (the token, so that nobody sees another's), and what."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps([address, token or "", *asked], sort_keys=True).encode()).hexdigest()

    def _cached(self, key: str, seconds: float) -> dict | None:
        """An answer kept at most so long ago, as `{data, body, age}`; `None` where there is none, or a damaged one."""
        import json
        from time import time
        from zlib import crc32

        try:
            check, _, held = (self._cache_folder() / key).read_bytes().partition(b"\n")
            if check != b"%08x" % crc32(held):
                return None
            head, _, body = held.partition(b"\n")
            kept = json.loads(head)
        except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
            return None
        age = time() - kept["time"]
        return {"data": kept["data"], "body": body, "age": age} if 0 <= age < seconds else None

    def _cache(self, key: str, data: Any, body: bytes = b"") -> None:
        """Keeps an answer: plain data, and bytes. Never a failure. At most 300 answers and 100 MB a tool, oldest out."""
        import contextlib
        import json
        import os
        import tempfile
        from pathlib import Path
        from time import time
        from zlib import crc32

        held = json.dumps({"time": time(), "data": data}).encode() + b"\n" + body
        if len(held) > 64_000_000:
            return
        with contextlib.suppress(OSError, RuntimeError):  # a cache that cannot be written is none
            folder = self._cache_folder()
            handle, name = tempfile.mkstemp(prefix=".", dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(b"%08x\n" % crc32(held) + held)
                Path(name).replace(folder / key)
            except OSError:
                Path(name).unlink()
                raise
            files = sorted([(one.stat().st_mtime, one.stat().st_size, one.path) for one in os.scandir(folder)])
            total = sum([size for _, size, _ in files])
            while len(files) > 300 or total > 100_000_000:
                _, size, path = files.pop(0)
                total -= size
                Path(path).unlink(missing_ok=True)

    def _cache_folder(self) -> Any:
        """This user's alone, as answers to other tokens lie in it: `$XDG_CACHE_HOME` (default ~/.cache) / the tool's name."""
        import os
        from pathlib import Path

        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (home if home.is_absolute() else Path.home() / ".cache") / self.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # refused where it belongs to somebody else, whose answers are not believed
        return folder

    # End of shared: cache

"""config.json as transformers reads it: what a source demands of it, what redirects the loader, what changes nothing.

config.json, Plan → ``inspect_model()`` → Notes

File and function names are those of transformers 5.24; version 4 is named where it differs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from converters.auditing.inspection.fates import (
    ABSENT,
    NUMBER,
    Fields,
    NoEffect,
    is_int,
    shown,
    words,
)
from converters.auditing.inspection.label_fields import inspect_labels
from converters.folder.config import model_config
from converters.folder.plan import Plan

DEFAULTS: Mapping[str, Any] = {
    "num_channels": 3,
    "embedding_size": 64,
    "depths": [3, 4, 6, 3],
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "num_groups": 32,
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
    "pool_padding": "zeros",
}
"""The values of missing fields: models/bit/configuration_bit.py, and bit_ref for ``pool_padding``."""
HIDDEN_SIZES = [256, 512, 1024, 2048]
UNDECLARED_PROBLEM = "single_label_classification"
"""The problem type that libraries assume where labels are numbers of classes."""
PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")

SIZES = ("num_channels", "embedding_size", "depths")
"""Fields that say how large a network is built before its weights are looked at."""

NULL: Collection[Any] = (None,)
REDIRECTS: Mapping[str, Collection[Any]] = {
    # modeling_utils.py from_pretrained: transformers_explicit_filename
    "transformers_weights": NULL,
    # quantizers/auto.py get_hf_quantizer; version 4 also followed compression_config
    "quantization_config": NULL,
    "compression_config": NULL,
    # models/auto/auto_factory.py and configuration_auto.py: code of the folder, or of another repository
    "auto_map": ({},),
    # pipelines/__init__.py pipeline: code of the folder
    "custom_pipelines": ({},),
    # configuration_utils.py get_config_dict: another file is read instead of config.json
    "configuration_files": ([],),
    # modeling_utils.py from_pretrained: register_fusion_patches
    "fusion_config": NULL,
    # configuration_utils.py __post_init__: other values for single layers
    "per_layer_config": NULL,
    # configuration_utils.py __getattribute__: one attribute is read as another
    "attribute_map": ({},),
    # configuration_utils.py get_text_config: another config is taken out of this one
    "text_config": NULL,
    "text_encoder": NULL,
    "decoder": NULL,
    "generator": NULL,
}
"""Fields that a loader of any layout may follow elsewhere, with the values that it does not follow."""

FOLLOWED: Mapping[str, Collection[Any]] = {
    # utils/generic.py is_timm_local_checkpoint: the image processor is then read out of config.json
    "pretrained_cfg": (),
    # models/auto/image_processing_auto.py from_pretrained, where preprocessor_config.json names no class
    "image_processor_type": (None, "BitImageProcessor", "BitImageProcessorFast"),
    # configuration_utils.py remap_legacy_layer_types, validate_layer_type, validate_token_ids
    # transformers 4 pipelines/base.py Pipeline: these replace labels and problem type for the task of a pipeline
    "task_specific_params": (None, {}),
    # trainer.py prediction_step: these outputs, logits among them, are left out of what a Trainer predicts
    "keys_to_ignore_at_inference": ([],),
    # modeling_utils.py save_pretrained, trainer.py: taken for how a model is spread over devices
    "distributed_config": NULL,
    "layer_types": (),
    "num_hidden_layers": (),
    "mtp_layer_types": NULL,
    "mlp_layer_types": NULL,
    "vocab_size": NULL,
    # modeling_rope_utils.py convert_rope_params_to_dict
    "rope_scaling": (),
    "rope_parameters": NULL,
    # modeling_utils.py _check_and_adjust_attn_implementation, _check_and_adjust_experts_implementation
    "attn_implementation": (None, "eager"),
    "experts_implementation": NULL,
    "_attn_implementation": (None, "eager"),
    "_experts_implementation": NULL,
}
"""Fields that a loader takes for something that no BiT has, with the values that it does not."""

ATTRIBUTES = frozenset(
    words("""
    _auto_class _check_received_keys _decode_special_floats _dict_from_json_file _encode_special_floats _get_config_dict
    _get_files_timestamps _get_generation_parameters _getattr_without_heterogeneous_validation
    _hasattr_without_heterogeneous_validation _iter_config_keys_with_heterogeneous_adjustment _out_features _out_indices
    _remove_keys_not_serialized _update_heterogeneous_to_dict_output _upload_modified_files
    _validate_axial_rope_parameters _validate_default_rope_parameters _validate_dynamic_rope_parameters
    _validate_linear_rope_parameters _validate_llama3_rope_parameters _validate_longrope_rope_parameters
    _validate_proportional_rope_parameters _validate_yarn_rope_parameters _heterogeneity_spec _output_attentions
    _post_init_done allow_global_per_layer_attribute_access base_config_key base_model_ep_plan base_model_fsdp_plan
    base_model_pp_plan base_model_tp_plan convert_rope_params_to_dict default_config_fields default_rope_type
    default_theta dict_dtype_to_str extra_config_files extra_files from_dict from_json_file from_pretrained
    get_config_dict get_mtp_config get_text_config ignore_keys_at_rope_validation is_custom_code is_heterogeneous
    is_remote_code layer_types nested_rope_parameter_keys per_layer_attributes push_to_hub register_for_auto_class
    rope_scaling save_pretrained serialize_explicit_per_layer_config set_output_features_output_indices
    standardize_rope_params sub_configs sub_configs_defaults supported_padding to_dict to_diff_dict to_json_file
    to_json_string update update_from_string use_return_dict validate validate_architecture validate_layer_type
    validate_output_attentions validate_rope validate_token_ids verify_out_features_out_indices
    """)
)
"""Attributes of transformers' BitConfig that are no fields of config.json: a key of that name would replace them."""

GENERATION = words("""
    assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length
    no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams
    num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens
    target_lookbehind temperature top_k top_p typical_p use_cache
""")
TEXT_MODELS = words("""
    add_cross_attention bos_token_id cross_attention_hidden_size decoder_start_token_id eos_token_id is_decoder
    pad_token_id prefix sep_token_id tf_legacy_loss tie_encoder_decoder
    tie_word_embeddings tokenizer_class
""")
LEFT_BEHIND = words("""
    _attn_implementation_autoset _attn_implementation_internal _experts_implementation_internal _commit_hash
    _name_or_path _num_labels name_or_path
""")
INITIALISATION = words("init_std initializer_factor initializer_range")
TRAINING = words("finetuning_task function_to_apply gradient_checkpointing use_bfloat16 video_processor_type")

MODEL_FIELDS: Mapping[str, NoEffect] = {
    **dict.fromkeys(
        GENERATION,
        NoEffect("transformers configuration_utils.py __post_init__ drops parameters of text generation", sample=7),
    ),
    **dict.fromkeys(
        TEXT_MODELS,
        NoEffect("transformers models/bit/modeling_bit.py reads nothing of text models", sample=7),
    ),
    **dict.fromkeys(
        LEFT_BEHIND,
        NoEffect(
            "transformers modeling_utils.py from_pretrained replaces or drops what an earlier save left", sample=7
        ),
    ),
    **dict.fromkeys(
        INITIALISATION,
        NoEffect(
            "transformers modeling_utils.py _init_weights is for weights that are missing, and none is", sample=0.5
        ),
    ),
    **dict.fromkeys(
        TRAINING,
        NoEffect("transformers models/bit/modeling_bit.py and pipelines/image_classification.py do not read it"),
    ),
    "conv_layer": NoEffect(
        "transformers models/bit/modeling_bit.py has one kind of convolution", sample="std_conv_bit"
    ),
    "transformers_version": NoEffect(
        "transformers configuration_utils.py to_dict writes it, nothing reads it", sample="4.26.0"
    ),
    "drop_path_rate": NoEffect(
        "transformers models/bit/modeling_bit.py BitDropPath passes its input in evaluation mode", NUMBER, 0.5
    ),
    "output_hidden_states": NoEffect(
        "transformers models/bit/modeling_bit.py BitModel.forward gives more beside the same logits", sample=True
    ),
    "output_attentions": NoEffect("transformers models/bit/modeling_bit.py has no attention to give", sample=True),
    "chunk_size_feed_forward": NoEffect(
        "transformers pytorch_utils.py apply_chunking_to_forward is for attention blocks", sample=8
    ),
    "is_encoder_decoder": NoEffect("transformers configuration_utils.py get_text_config: of text models", sample=True),
    "torchscript": NoEffect(
        "transformers 4 configuration_utils.py use_return_dict: a tuple of the same logits; 5 does not read it",
        sample=True,
    ),
    "pruned_heads": NoEffect(
        "transformers 4 modeling_utils.py prune_heads is for attention, 5 does not read it", sample={"0": [1]}
    ),
}
"""Fields of config.json that change nothing in the transformers layout."""

DTYPES = {"float": "float32", "half": "float16"}
"""Other names that PyTorch has for what values are stored in."""


def inspect_model(fields: Fields, plan: Plan) -> None:
    """Notes every field of a config.json in the transformers layout."""
    follow_nothing(fields)
    _inspect_network(fields, plan)
    inspect_dtype(fields, plan.storage.dtype)
    inspect_declarations(fields, plan)
    inspect_labels(fields, plan)
    inspect_problem(fields, plan)
    fields.one_of("return_dict", [True])
    _inspect_stages(fields, plan)
    fields.rest(MODEL_FIELDS, ATTRIBUTES, "transformers' BitConfig")


def follow_nothing(fields: Fields) -> None:
    """Notes fields that send a loader elsewhere, in a config.json of any layout."""
    fields.none_of(REDIRECTS, "redirects its loader, or brings code")


def _inspect_network(fields: Fields, plan: Plan) -> None:
    wanted = model_config(plan)
    fields.equal("model_type", "bit")
    fields.one_of("architectures", [wanted["architectures"], None, []])
    fields.none_of(FOLLOWED, "is followed by a loader")
    sized = [fields.equal(name, wanted[name], DEFAULTS[name]) for name in SIZES]
    for name in DEFAULTS.keys() - {*SIZES, "pool_padding"}:
        fields.equal(name, wanted[name], DEFAULTS[name])
    sizes, factor = fields.take("hidden_sizes", HIDDEN_SIZES), fields.take("width_factor", 1)
    place = fields.place("hidden_sizes") + " × width_factor"
    sized.append(fields.notes.must(place, shown(wanted["hidden_sizes"]), shown(_product(sizes, factor))))
    sized.append(fields.notes.must(fields.place("width_factor"), "1", shown(factor), "the last norm is not widened"))
    if not all(sized):
        fields.notes.mislead(f"{fields.file} describes another network than the weights are of")


def _product(sizes: Any, factor: Any) -> Any:
    """The widths that are built, as far as there are any."""
    if isinstance(sizes, list) and all(map(is_int, sizes)) and is_int(factor):
        return [size * factor for size in sizes]
    return sizes


def inspect_dtype(fields: Fields, stored: str) -> None:
    """Compares the loader's dtype: it must be the stored one, or for halves float32, which holds them exactly.

    Version 5 reads ``dtype`` first, version 4 ``torch_dtype`` alone: both must be right.
    """
    fitting = [None, *dict.fromkeys([stored, "float32"])]
    for name in ("dtype", "torch_dtype"):
        aliases = [alias for alias, dtype in DTYPES.items() if dtype in fitting]
        fields.one_of(name, [stored, *(each for each in [*fitting, *aliases] if each != stored)])


def inspect_declarations(fields: Fields, plan: Plan) -> None:
    """Compares the fields that bit_ref alone reads."""
    wanted = model_config(plan)
    if "weight_standardization_eps" in fields:
        fields.equal("weight_standardization_eps", wanted["weight_standardization_eps"])
    if "exact" in fields:
        fields.equal("exact", plan.storage.exact)
    fields.equal("pool_padding", wanted["pool_padding"], DEFAULTS["pool_padding"])


def inspect_problem(fields: Fields, plan: Plan) -> None:
    """Compares the loss, and how a pipeline makes scores of logits, where the catalogue knows the variant."""
    wanted = plan.variant.problem_type if plan.variant else None
    if wanted is None:
        fields.one_of("problem_type", PROBLEMS)
        return
    found = fields.take("problem_type", None)
    fields.notes.must(
        fields.place("problem_type"), shown(wanted), shown(UNDECLARED_PROBLEM if found is None else found)
    )


def _inspect_stages(fields: Fields, plan: Plan) -> None:
    """Compares the stages that a backbone gives; a classifier does not read them, but refuses what is none."""
    names = ["stem", *(f"stage{block + 1}" for block in range(len(plan.architecture.units)))]
    if "stage_names" in fields:
        fields.equal("stage_names", names)
    features, indices = fields.take("out_features"), fields.take("out_indices")
    if features not in (ABSENT, None):
        fields.notes.fulfil(
            fields.place("out_features"), f"some of {shown(names)}", features, _ordered(features, names)
        )
    if indices not in (ABSENT, None):
        places = (
            [index % len(names) if is_int(index) and -len(names) <= index < len(names) else -1 for index in indices]
            if isinstance(indices, list)
            else [-1]
        )
        chosen = [names[place] for place in places]
        agree = -1 not in places and _ordered(chosen, names) and features in (ABSENT, None, chosen)
        fields.notes.fulfil(fields.place("out_indices"), "the numbers of stages", indices, agree)


def _ordered(chosen: Any, names: list[str]) -> bool:
    return isinstance(chosen, list) and chosen == [name for name in names if name in chosen]

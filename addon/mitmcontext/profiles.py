"""The specification's named presets.

A preset says what a user would have to set. Those under "remedies" are what the specification
advises against high memory use, slow answers and low hit ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PROFILES: Final[Mapping[str, Mapping[str, str]]] = {
    "high_traffic": {
        "enable_ai_condensation": "true",
        "condensation_default_strategy": "conversation_summary",
        "condensation_caution_threshold": "0.70",
        "condensation_warning_threshold": "0.80",
        "condensation_critical_threshold": "0.90",
        "condensation_min_messages": "3",
        "condensation_max_messages": "5",
        "condensation_timeout": "15s",
        "condensation_cache_ttl": "1800s",
    },
    "maximum_accuracy": {
        "enable_ai_condensation": "true",
        "condensation_default_strategy": "key_point_extraction",
        "condensation_min_messages": "5",
        "condensation_max_messages": "15",
        "condensation_timeout": "60s",
        "condensation_quality_threshold": "0.9",
    },
    "development": {
        "enable_ai_condensation": "true",
        "condensation_caution_threshold": "0.30",
        "condensation_warning_threshold": "0.50",
        "condensation_critical_threshold": "0.70",
        "enable_context_performance_logging": "true",
        "enable_token_counting_logging": "true",
    },
    "token_counting_fast": {
        "enable_token_counting_logging": "false",
        "enable_accurate_token_counting": "true",
        "tiktoken_cache_size": "2000",
        "base_image_tokens": "85",
        "image_tokens_per_char": "0.25",
        "enable_dynamic_image_tokens": "true",
    },
    "token_counting_small": {
        "enable_accurate_token_counting": "true",
        "tiktoken_cache_size": "500",
        "base_image_tokens": "1000",
        "enable_dynamic_image_tokens": "false",
    },
    "caching_fast": {
        "condensation_cache_ttl": "7200s",
        "context_cache_size": "200",
        "context_analysis_cache_ttl": "600s",
        "cache_enable_logging": "false",
    },
    "caching_small": {
        "condensation_cache_ttl": "1800s",
        "context_cache_size": "50",
        "context_analysis_cache_ttl": "180s",
    },
    "high_quality": {
        "condensation_max_messages": "15",
        "condensation_timeout": "60s",
        "condensation_quality_threshold": "0.9",
    },
    "balanced": {
        "condensation_max_messages": "10",
        "condensation_timeout": "30s",
        "condensation_quality_threshold": "0.8",
    },
    "high_speed": {
        "condensation_max_messages": "5",
        "condensation_timeout": "15s",
        "condensation_quality_threshold": "0.6",
    },
    # Remedies.
    "less_memory": {
        "condensation_cache_ttl": "1800s",
        "tiktoken_cache_size": "500",
        "context_cache_size": "50",
        "cache_cleanup_interval": "1800s",
    },
    "faster_responses": {
        "condensation_max_messages": "5",
        "condensation_timeout": "15s",
        "enable_context_performance_logging": "true",
        "tiktoken_cache_size": "2000",
        "context_cache_size": "200",
    },
    "better_hit_ratio": {
        "condensation_cache_ttl": "7200s",
        "tiktoken_cache_size": "3000",
        "context_cache_size": "500",
        "context_analysis_cache_ttl": "1800s",
    },
}


def profile(name: str) -> Mapping[str, str]:
    """The settings of a preset, as a user would write them; none for no name."""
    return PROFILES.get(name, {})

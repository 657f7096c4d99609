"""Small chat templates in the ways of well-known model families, with ChatML's control tokens."""

from typing import Final

GROUPING: Final = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "Tools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n"
    "{% elif messages[0].role != 'system' %}<|im_start|>system\nBe useful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% elif not (tools and loop.first and m.role == 'system') %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen: a system text of its own, tools in front, outputs side by side in one user turn."""

FORGETTING: Final = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' and not m.content.startswith('<tool_response>') %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}{# tools #}"
)
"""As Qwen 3: what was thought before the last question is forgotten."""

TRIMMING: Final = (
    "{{ bos_token }}{% set start = 1 if messages[0].role == 'system' else 0 %}"
    "<|im_start|>system<|im_start|>\n\nYou know much."
    "{% if start %}{{ messages[0].content | trim }}{% endif %}"
    "{% if tools %}{% for t in tools %}{{ t | tojson(indent=1) }}\n{% endfor %}{% endif %}<|im_end|>"
    "{% for m in messages[start:] %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}"
    "<|im_start|>assistant<|im_start|>\n\n{{ m.tool_calls[0].function | tojson }}<|im_end|>"
    "{% else %}<|im_start|>{{ 'ipython' if m.role == 'tool' else m.role }}<|im_start|>\n\n"
    "{{ m.content | trim }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_start|>\n\n{% endif %}"
)
"""As Llama 3: headers, trimmed texts, one call at a time."""

TOOLS_LAST: Final = (
    "{{ bos_token }}{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}"
    "{% if m.role == 'user' %}"
    "{% if tools and loop.index0 == ns.last %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
    "<|im_start|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'assistant' %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[CALL]{{ c.function | tojson }}{% endfor %}<|endoftext|>"
    "{% else %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
"""As Mistral: tools in front of the last question, nothing that makes the assistant speak."""

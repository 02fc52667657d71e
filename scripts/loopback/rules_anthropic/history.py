"""What a history must look like, so that api.anthropic.com takes it."""

from __future__ import annotations

from collections.abc import Iterator

from loopback.rules_anthropic.view import Block, Body, Group, View, blocks_of, groups_of

MOST_MARKERS = 4


def texts_are_not_empty(view: View) -> Iterator[str]:
    """No empty text block anywhere, and no empty message but a final one of the assistant."""
    last = len(view.messages) - 1
    for index, message in enumerate(view.messages):
        blocks = blocks_of(message["content"])
        if not blocks and not (index == last and message["role"] == "assistant"):
            yield (
                f"messages.{index}: all messages must have non-empty content except for the"
                " optional final assistant message"
            )
        yield from _empty_texts(f"messages.{index}.content", "messages", blocks)
    yield from _empty_texts("system", "system", blocks_of(view.body.get("system")))


def _empty_texts(where: str, whole: str, blocks: list[Block]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            yield from _empty_texts(
                f"{where}.{number}.tool_result.content", whole, block["content"]
            )
        if block["type"] != "text" or block["text"]:
            continue
        if block.get("cache_control"):
            yield (
                f"{where}.{number}.text.cache_control: cache_control cannot be set for empty text"
                " blocks"
            )
        yield f"{whole}: text content blocks must be non-empty"


def texts_are_not_blank(view: View) -> Iterator[str]:
    """White space alone is no text."""
    for message in view.messages:
        for block in blocks_of(message["content"]):
            if block["type"] == "text" and not block["text"].strip():
                yield "messages: text content blocks must contain non-whitespace text"


def first_is_the_users(view: View) -> Iterator[str]:
    """A conversation begins with the user."""
    groups = groups_of(view.messages)
    if not groups or groups[0].role != "user":
        yield 'messages: first message must use the "user" role'


def end_has_no_blanks(view: View) -> Iterator[str]:
    """What the assistant is to continue ends in a visible sign."""
    last = view.messages[-1]
    if last["role"] == "assistant":
        blocks = blocks_of(last["content"])
        if (
            blocks
            and blocks[-1]["type"] == "text"
            and blocks[-1]["text"] != blocks[-1]["text"].rstrip()
        ):
            yield "messages: final assistant content cannot end with trailing whitespace"


def markers(view: View) -> Iterator[str]:
    """At most four `cache_control`, those that live longer first."""
    found = list(_markers(view.body))
    if len(found) > MOST_MARKERS:
        yield (
            f"A maximum of {MOST_MARKERS} blocks with cache_control may be provided."
            f" Found {len(found)}."
        )
    short = False
    for where, marker in found:
        short = short or marker.get("ttl", "5m") == "5m"
        if short and marker.get("ttl") == "1h":
            yield (
                f"{where}.cache_control.ttl: a ttl='1h' cache_control block must not come after a"
                " ttl='5m' cache_control block. Note that blocks are processed in the following"
                " order: `tools`, `system`, `messages`."
            )


def _markers(body: Body) -> Iterator[tuple[str, Block]]:
    for number, tool in enumerate(body.get("tools") or []):
        if tool.get("cache_control"):
            yield f"tools.{number}", tool["cache_control"]
    yield from _markers_in("system", blocks_of(body.get("system")))
    for index, message in enumerate(body.get("messages") or []):
        yield from _markers_in(f"messages.{index}.content", blocks_of(message["content"]))


def _markers_in(where: str, blocks: list[Block]) -> Iterator[tuple[str, Block]]:
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result":
            yield from _markers_in(f"{where}.{number}.content", blocks_of(block.get("content")))
        if block.get("cache_control"):
            yield f"{where}.{number}", block["cache_control"]


def count_markers(body: Body) -> int:
    """How many `cache_control` a request holds, nested ones included."""
    return sum(1 for _ in _markers(body))


def calls_have_results(view: View) -> Iterator[str]:
    """Each call has one result at the head of the next message, and there are no others."""
    groups = groups_of(view.messages)
    seen: set[str] = set()
    for position, group in enumerate(groups):
        called = group.ids("tool_use")
        for call in called:
            if call in seen:
                yield "messages: `tool_use` ids must be unique"
            seen.add(call)
        following = groups[position + 1] if position + 1 < len(groups) else None
        yield from _unanswered(group, called, following)
        before = groups[position - 1].ids("tool_use") if position else []
        yield from _unexpected(group, before)


def _unanswered(group: Group, called: list[str], following: Group | None) -> Iterator[str]:
    answered = _leading_results(following)
    missing = [call for call in called if call not in answered]
    if missing:
        yield (
            f"messages.{group.blocks[-1][0]}: `tool_use` ids were found without `tool_result`"
            f" blocks immediately after: {', '.join(missing)}. Each `tool_use` block must have a"
            " corresponding `tool_result` block in the next message."
        )
    for call in called:
        if answered.count(call) > 1:
            yield (
                f"messages.{group.index}: each tool_use must have a single result. Found multiple"
                f" `tool_result` blocks with id: {call}"
            )


def _leading_results(group: Group | None) -> list[str]:
    """The results before anything else: what stands behind other content answers nothing."""
    found: list[str] = []
    for _, _, block in group.blocks if group else []:
        if block["type"] != "tool_result":
            break
        found.append(block["tool_use_id"])
    return found


def _unexpected(group: Group, called: list[str]) -> Iterator[str]:
    for index, number, block in group.blocks:
        if block["type"] == "tool_result" and block["tool_use_id"] not in called:
            yield (
                f"messages.{index}.content.{number}: unexpected `tool_use_id` found in"
                f" `tool_result` blocks: {block['tool_use_id']}. Each `tool_result` block must"
                " have a corresponding `tool_use` block in the previous message."
            )


def thinking_is_genuine(view: View) -> Iterator[str]:
    """Thinking carries the signature of just this text."""
    groups = groups_of(view.messages)
    latest = _current_turn(groups)
    for position, group in enumerate(groups):
        for index, number, block in group.blocks:
            if block["type"] != "thinking":
                continue
            known = view.memory.text_under.get(block["signature"])
            if known is None or known == block["thinking"]:
                continue
            if position >= latest:
                yield _not_modified(index, number)
            yield f"messages.{index}.content.{number}: Invalid `signature` in `thinking` block"


def thinking_is_complete(view: View) -> Iterator[str]:
    """Since the last turn of the user's, thinking stays beside the calls that it led to."""
    groups = groups_of(view.messages)
    for group in groups[_current_turn(groups) :]:
        for call in group.ids("tool_use"):
            known = view.memory.signatures_beside.get(call)
            if known is None or known == group.signatures():
                continue
            index, number, first = group.blocks[0]
            if first["type"] not in ("thinking", "redacted_thinking"):
                yield (
                    f"messages.{index}.content.{number}.type: Expected `thinking` or"
                    f" `redacted_thinking`, but found `{first['type']}`. When `thinking` is"
                    " enabled, a final `assistant` message must start with a thinking block"
                    " (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We"
                    " recommend you include thinking blocks from previous turns. To avoid this"
                    " requirement, disable `thinking`."
                )
            yield _not_modified(index, number)


def _not_modified(index: int, number: int) -> str:
    return (
        f"messages.{index}.content.{number}: `thinking` or `redacted_thinking` blocks in the"
        " latest assistant message cannot be modified. These blocks must remain as they were in"
        " the original response."
    )


def _current_turn(groups: list[Group]) -> int:
    """Where the current turn begins: behind the last user message without tool results.

    A message that holds a result and a text continues the tool loop, whoever wrote the text.
    """
    for position in range(len(groups) - 1, -1, -1):
        if groups[position].role == "user" and not groups[position].ids("tool_result"):
            return position
    return 0

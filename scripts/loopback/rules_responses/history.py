"""What a history of items must look like, so that `/v1/responses` takes it."""

from __future__ import annotations

from collections.abc import Iterator

from loopback.refusal import Refusal
from loopback.rules_responses.items import ANSWERS, Json, Memory, is_made, items_of, type_of


def nothing_stands_twice(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Each id belongs to one item."""
    seen: set[str] = set()
    for item in items_of(body):
        own = item.get("id")
        if own is None:
            continue
        if own in seen:
            yield Refusal(
                f"Duplicate item found with id {own}. Remove duplicate items from your input and"
                " try again.",
                param="input",
            )
        seen.add(own)


def what_is_meant_is_there(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Earlier responses, and items that are only referred to, were stored."""
    named = body.get("previous_response_id")
    if named is not None and named not in memory.stored:
        yield Refusal(
            f"Previous response with id '{named}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    held = {item.get("id") for item in memory.held()}
    for item in items_of(body):
        refers = type_of(item) == "item_reference"
        bare = item.get("type") == "reasoning" and not (
            item.get("encrypted_content") or item.get("content")
        )
        if (refers or (bare and item.get("id"))) and item.get("id") not in held:
            yield Refusal(
                f"Item with id '{item.get('id')}' not found. Items are not persisted when `store`"
                " is set to false. Try again with `store` set to true, or remove this item from"
                " your input.",
                404,
                param="input",
            )


def calls_have_outputs(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Each call has an output somewhere behind it, and each output a call before it."""
    waiting: dict[str, str] = {}
    called = set[str]()
    for item in memory.held() if body.get("previous_response_id") else ():
        if item.get("type") in ANSWERS:
            called.add(item["call_id"])
    for item in items_of(body):
        kind = type_of(item)
        if kind in ANSWERS:
            waiting[item["call_id"]] = ANSWERS[kind]
            called.add(item["call_id"])
        elif kind.removesuffix("_output") in ANSWERS:
            if item["call_id"] not in called:
                named = ANSWERS[kind.removesuffix("_output")]
                yield Refusal(
                    f"No tool call found for {named} output with call_id {item['call_id']}.",
                    param="input",
                )
            waiting.pop(item["call_id"], None)
    for call, named in waiting.items():
        yield Refusal(f"No tool output found for {named} {call}.", param="input")


def reasoning_stays_with_what_follows(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Reasoning has what was said with it behind it, and that has its reasoning before it."""
    held = {item.get("id"): item for item in memory.held()}
    refers = (type_of(item) == "item_reference" for item in items_of(body))
    pairs = zip(items_of(body), refers, strict=True)
    items = [held[item["id"]] if refer else item for item, refer in pairs]
    before: set[str] = set()
    for at, item in enumerate(items):
        own = str(item.get("id") or "")
        if type_of(item) == "reasoning":
            before.add(own)
            follows = items[at + 1] if at + 1 < len(items) else {}
            if not is_made(follows):
                yield Refusal(
                    f"Item '{own}' of type 'reasoning' was provided without its required following"
                    " item.",
                    param="input",
                )
        elif memory.reasoned.get(own, "") not in before | {""}:
            yield Refusal(
                f"Item '{own}' of type '{type_of(item)}' was provided without its required"
                f" 'reasoning' item: '{memory.reasoned[own]}'.",
                param="input",
            )


def what_is_sealed_is_genuine(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Sealed reasoning is what it was."""
    for item in items_of(body):
        sealed = item.get("encrypted_content")
        if type_of(item) != "reasoning" or not sealed:
            continue
        known = memory.sealed.get(str(item.get("id") or ""), sealed)
        if sealed != known:
            yield Refusal(
                f"The encrypted content {sealed[:4]}...{sealed[-4:]} could not be verified. Reason:"
                " Encrypted content could not be decrypted or parsed.",
                param="input",
                code="invalid_encrypted_content",
            )


def the_trigger_is_last(body: Json, memory: Memory) -> Iterator[Refusal]:
    """A compaction is asked for at the end of the input."""
    if any(type_of(item) == "compaction_trigger" for item in items_of(body)[:-1]):
        yield Refusal("'compaction_trigger' must be the last item of the input.", param="input")

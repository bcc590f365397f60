// The `@anthropic-ai/sdk` package of Node.js.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { QUESTION, RIVERS, address, check, key, main, model, waitUntilIdle } from "./suite.mjs";

const client = new Anthropic({ baseURL: address, apiKey: key, maxRetries: 0, timeout: 300_000 });
const input_schema = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 } },
  required: ["city"],
  additionalProperties: false,
};
const ask = {
  model,
  max_tokens: 24,
  temperature: 0,
  messages: [{ role: "user", content: RIVERS }],
};

check("text", "a text", async () => {
  const message = await client.messages.create({ ...ask, system: "Be brief." });
  assert(message.content[0].text);
});

check("stream", "a stream", async () => {
  const whole = await client.messages.create(ask);
  const stream = client.messages.stream(ask);
  let text = "";
  stream.on("text", (delta) => (text += delta));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.equal(final.content[0].text, text);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

check("tools", "a call and its result", async () => {
  const tools = [{ name: "get_weather", description: "Looks up the weather.", input_schema }];
  const messages = [{ role: "user", content: QUESTION }];
  const choice = { type: "any", disable_parallel_tool_use: true };
  const call = { ...ask, messages, tools, max_tokens: 120, tool_choice: choice };
  const message = await client.messages.create(call);
  const [block] = message.content;
  assert.equal(message.stop_reason, "tool_use");
  assert.deepEqual(Object.keys(block.input), ["city"]);
  const result = { type: "tool_result", tool_use_id: block.id, content: "18 degrees" };
  messages.push({ role: "assistant", content: message.content }, { role: "user", content: [result] });
  const answer = await client.messages.create({ ...ask, messages, tools, tool_choice: { type: "none" } });
  assert(answer.content[0].text);
  const streamed = await client.messages.stream({ ...call, messages: messages.slice(0, 1) }).finalMessage();
  assert.deepEqual(streamed.content[0].input, block.input);
});

check("structured", "a schema", async () => {
  const format = { type: "json_schema", schema: input_schema };
  const message = await client.messages.create({ ...ask, max_tokens: 100, output_config: { format } });
  assert.deepEqual(Object.keys(JSON.parse(message.content[0].text)), ["city"]);
});

check("usage", "tokens are counted", async () => {
  const { usage } = await client.messages.create(ask);
  const { messages } = ask;
  const { input_tokens } = await client.messages.countTokens({ model, messages });
  assert.equal(usage.output_tokens, 24);
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
});

check("errors", "an unknown model is not found", async () => {
  await assert.rejects(client.messages.create({ ...ask, model: "none" }), (error) => {
    assert(error instanceof Anthropic.NotFoundError);
    return error.error.error.type === "not_found_error";
  });
});

check("cancel", "aborting a stream ends the work", async () => {
  const stream = await client.messages.create({ ...ask, max_tokens: 4000, ignore_eos: true, stream: true });
  for await (const event of stream) if (event.type === "content_block_delta") break;
  stream.controller.abort();
  await waitUntilIdle();
});

await main("@anthropic-ai/sdk");

// The `openai` package of Node.js: chats and responses.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { QUESTION, RIVERS, check, key, main, model, openaiAddress, waitUntilIdle } from "./suite.mjs";

const client = new OpenAI({ baseURL: openaiAddress, apiKey: key, maxRetries: 0, timeout: 300_000 });
const River = z.object({ name: z.string().max(20), length_km: z.number().int().min(0).max(9999) });
const parameters = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 } },
  required: ["city"],
  additionalProperties: false,
};
const brief = { model, input: RIVERS, max_output_tokens: 24, temperature: 0 };
const chat = {
  model,
  messages: [{ role: "user", content: RIVERS }],
  max_completion_tokens: 24,
  temperature: 0,
};

check("text", "a text by both", async () => {
  const response = await client.responses.create(brief);
  const completion = await client.chat.completions.create(chat);
  assert(response.output_text);
  assert.equal(response.output_text, completion.choices[0].message.content);
});

check("stream", "streams of both", async () => {
  const whole = (await client.responses.create(brief)).output_text;
  let [text, said] = ["", ""];
  for await (const event of await client.responses.create({ ...brief, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
    said += chunk.choices[0]?.delta.content ?? "";
  }
  assert.deepEqual([text, said], [whole, whole]);
});

check("tools", "a call and its result by responses", async () => {
  const tool = { type: "function", name: "get_weather", parameters, strict: true };
  const ask = { ...brief, input: QUESTION, max_output_tokens: 120, tools: [tool] };
  const first = await client.responses.create({
    ...ask,
    tool_choice: "required",
    parallel_tool_calls: false,
  });
  const [call] = first.output;
  assert.deepEqual(Object.keys(JSON.parse(call.arguments)), ["city"]);
  const result = { type: "function_call_output", call_id: call.call_id, output: "18 degrees" };
  const input = [{ role: "user", content: QUESTION }, call, result];
  assert((await client.responses.create({ ...ask, input, tool_choice: "none" })).output_text);
});

check("tools", "a call and its result by chats", async () => {
  const tool = { type: "function", function: { name: "get_weather", parameters } };
  const messages = [{ role: "user", content: QUESTION }];
  const ask = { ...chat, messages, max_completion_tokens: 120, tools: [tool] };
  const choice = { tool_choice: "required", parallel_tool_calls: false };
  const { message } = (await client.chat.completions.create({ ...ask, ...choice })).choices[0];
  const [call] = message.tool_calls;
  messages.push(message, { role: "tool", tool_call_id: call.id, content: "18 degrees" });
  const answer = await client.chat.completions.create({ ...ask, tool_choice: "none" });
  assert(answer.choices[0].message.content);
});

check("structured", "parse by both", async () => {
  const response = await client.responses.parse({
    ...brief,
    max_output_tokens: 200,
    text: { format: zodTextFormat(River, "river") },
  });
  assert(River.safeParse(response.output_parsed).success);
  const completion = await client.chat.completions.parse({
    ...chat,
    max_completion_tokens: 200,
    response_format: zodResponseFormat(River, "river"),
  });
  assert(River.safeParse(completion.choices[0].message.parsed).success);
});

check("usage", "tokens are counted", async () => {
  const { usage } = await client.responses.create(brief);
  assert.equal(usage.output_tokens, 24);
  assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
});

check("errors", "an unknown model is not found", async () => {
  await assert.rejects(client.responses.create({ ...brief, model: "none" }), OpenAI.NotFoundError);
  await assert.rejects(
    client.responses.create({ ...brief, tools: [{ type: "web_search" }] }),
    OpenAI.BadRequestError,
  );
});

check("cancel", "aborting a stream ends the work", async () => {
  const long = { ...brief, max_output_tokens: 4000, ignore_eos: true, stream: true };
  const stream = await client.responses.create(long);
  for await (const event of stream) if (event.type === "response.output_text.delta") break;
  stream.controller.abort();
  await waitUntilIdle();
});

await main("openai");

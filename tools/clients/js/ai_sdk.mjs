// The `ai` package with the provider named on the command line: @ai-sdk/openai (responses, its
// default, and chats), @ai-sdk/anthropic and @ai-sdk/openai-compatible.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { QUESTION, RIVERS, check, key, main, model, openaiAddress, waitUntilIdle } from "./suite.mjs";

const [provider] = process.argv.slice(5);
const options = { baseURL: openaiAddress, apiKey: key };
const PROVIDERS = {
  "openai-responses": ["@ai-sdk/openai", createOpenAI(options)],
  "openai-chat": ["@ai-sdk/openai", createOpenAI(options).chat],
  anthropic: ["@ai-sdk/anthropic", createAnthropic(options)],
  "openai-compatible": [
    "@ai-sdk/openai-compatible",
    createOpenAICompatible({ ...options, name: "bantam", supportsStructuredOutputs: true, includeUsage: true }),
  ],
};
const [name, of] = PROVIDERS[provider];
const River = z.object({ name: z.string().max(20), length_km: z.number().int().min(0).max(9999) });
const base = { model: of(model), maxRetries: 0, temperature: 0, maxOutputTokens: 24 };
const weather = tool({
  description: "Looks up the weather of a city.",
  inputSchema: z.object({ city: z.string().max(20) }),
  execute: async ({ city }) => `18 degrees in ${city}`,
});

check("text", "a text", async () => {
  const { text } = await generateText({ ...base, system: "Be brief.", prompt: RIVERS });
  assert(text);
});

check("text", "a conversation", async () => {
  const messages = [{ role: "user", content: RIVERS }];
  const first = await generateText({ ...base, messages });
  messages.push(...first.response.messages, { role: "user", content: "And a fourth?" });
  assert((await generateText({ ...base, messages })).text);
});

check("stream", "a stream", async () => {
  const { text } = await generateText({ ...base, prompt: RIVERS });
  let streamed = "";
  let pieces = 0;
  for await (const piece of streamText({ ...base, prompt: RIVERS }).textStream) {
    streamed += piece;
    pieces += 1;
  }
  assert.equal(streamed, text);
  assert(pieces > 3, `${pieces} pieces`);
});

check("tools", "a call, its result, and an answer", async () => {
  const steps = {
    tools: { weather },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({
      toolChoice: stepNumber === 0 ? { type: "tool", toolName: "weather" } : "none",
    }),
  };
  const result = await generateText({ ...base, maxOutputTokens: 300, prompt: QUESTION, ...steps });
  assert.equal(result.steps[0].toolResults[0].output.slice(0, 10), "18 degrees");
  assert.equal(result.steps.length, 2);
  assert.equal(result.steps[0].finishReason, "tool-calls");
});

check("tools", "a call in a stream", async () => {
  const stream = streamText({
    ...base,
    maxOutputTokens: 300,
    prompt: QUESTION,
    tools: { weather },
    toolChoice: { type: "tool", toolName: "weather" },
  });
  const [call] = await stream.toolCalls;
  assert.deepEqual(Object.keys(call.input), ["city"]);
});

check("structured", "an object, whole and streamed", async () => {
  const ask = {
    ...base,
    maxOutputTokens: 200,
    prompt: "Describe the river Rhine.",
    output: Output.object({ schema: River }),
  };
  assert(River.safeParse((await generateText(ask)).output).success);
  const stream = streamText(ask);
  let last;
  for await (const partial of stream.partialOutputStream) last = partial;
  assert(River.safeParse(last).success);
});

check("usage", "tokens are counted", async () => {
  const { usage } = await generateText({ ...base, prompt: RIVERS });
  assert.equal(usage.outputTokens, 24);
  assert(usage.inputTokens > 0);
  const stream = streamText({ ...base, prompt: RIVERS });
  assert.equal((await stream.usage).outputTokens, 24);
  assert.equal(await stream.finishReason, "length");
});

check("errors", "an unknown model is not found", async () => {
  await assert.rejects(generateText({ ...base, model: of("none"), prompt: RIVERS }), (error) => {
    assert(APICallError.isInstance(error), `${error}`);
    assert(error.message.includes(model), error.message);
    return error.statusCode === 404;
  });
});

check("cancel", "aborting a stream ends the work", async () => {
  const abort = new AbortController();
  const long = "Tell me everything about rivers.";
  const stream = streamText({
    ...base,
    maxOutputTokens: 4000,
    prompt: long,
    abortSignal: abort.signal,
    onError: () => {},
  });
  for await (const _ of stream.textStream) break;
  abort.abort();
  await waitUntilIdle();
});

await main("ai", name);

/**
 * Asks a bundle from a command line, and holds this port against Python.
 *
 *     Main BUNDLE CONSTANTS "my chest hurts"              prints an answer
 *     Main BUNDLE CONSTANTS --reference FILE --output FILE  answers the questions of a reference.json
 *     Main BUNDLE CONSTANTS --texts FILE --output FILE      token ids, own clauses, red flags … of a list of texts
 */
package symptomchat

import java.io.File
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

private fun show(answer: Answer) {
    answer.redFlags.forEach { println("EMERGENCY: ${it.name}: ${it.advice}") }
    if (answer.alarmed) println("This sounds like an emergency.")
    answer.conditions.take(3).forEach { println("%5.1f %%  %s".format(100 * it.probability, it.name)) }
    println("confidence: ${answer.confidence}${if (answer.flagged) ", may be made up" else ""}")
    println("urgency: ${answer.triage}")
    for (claim in answer.symptoms + answer.treatments) println("- ${claim.text}${if (claim.grounded) "" else " (not in the sources)"}")
}

private fun entry(text: String, ids: List<Int>, answer: Answer): JsonObject {
    fun claims(items: List<Claim>) = JsonArray(items.map {
        JsonObject(mapOf("text" to JsonPrimitive(it.text), "confidence" to JsonPrimitive(it.confidence), "grounded" to JsonPrimitive(it.grounded)))
    })
    return JsonObject(mapOf<String, JsonElement>(
        "text" to JsonPrimitive(text),
        "ids" to JsonArray(ids.map(::JsonPrimitive)),
        "conditions" to JsonArray(answer.conditions.take(3).map {
            JsonObject(mapOf("name" to JsonPrimitive(it.name), "probability" to JsonPrimitive(it.probability)))
        }),
        "intent" to JsonPrimitive(answer.intent),
        "symptoms" to claims(answer.symptoms),
        "treatments" to claims(answer.treatments),
        "triage" to JsonPrimitive(answer.triage),
        "red_flags" to JsonArray(answer.redFlags.map { JsonPrimitive(it.name) }),
        "confidence" to JsonPrimitive(answer.confidence),
        "flagged" to JsonPrimitive(answer.flagged),
    ))
}

private fun reading(text: String, assistant: Assistant) = JsonObject(mapOf<String, JsonElement>(
    "ids" to JsonArray(assistant.grammar.question(text).map(::JsonPrimitive)),
    "own" to JsonPrimitive(assistant.patient.own(text)),
    "red_flags" to JsonArray(assistant.redFlags.check(text).map { JsonPrimitive(it.name) }),
    "alarm" to JsonPrimitive(assistant.alarm.probability(text)),
    "named" to JsonPrimitive(assistant.named(text)),
    "unknown" to JsonPrimitive(assistant.unknownName(text)),
))

fun main(arguments: Array<String>) {
    Assistant(File(arguments[0]), File(arguments[1])).use { assistant ->
        val mode = arguments[2]
        if (arguments.size == 3) return show(assistant.ask(mode))
        val given = Json.parseToJsonElement(File(arguments[3]).readText())
        val entries = when (mode) {
            "--reference" -> given.jsonObject.getValue("questions").jsonArray
                .map { it.jsonObject.getValue("text").jsonPrimitive.content }
                .map { entry(it, assistant.encode(it), assistant.ask(it)) }
            else -> given.jsonArray.map { it.jsonPrimitive.content }.map { reading(it, assistant) }
        }
        File(arguments[5]).writeText(JsonArray(entries).toString())
    }
}

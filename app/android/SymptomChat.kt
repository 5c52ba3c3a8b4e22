/**
 * SymptomChat for Android: a bundle and a question in, an answer out. One file, no network; docs/android.md explains it.
 *
 * Needs com.google.ai.edge.litert:litert and org.jetbrains.kotlinx:kotlinx-serialization-json (its JSON tree alone, so
 * no compiler plugin). Port of symptomchat/runtime and symptomchat/language; what differs by language is said where it
 * does. Not safe for use from two threads at a time.
 */
package symptomchat

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.text.Normalizer
import java.util.Base64
import java.util.zip.CRC32
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.ln1p
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToLong
import kotlin.math.sqrt
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.tensorflow.lite.Interpreter

private fun JsonObject.text(name: String) = getValue(name).jsonPrimitive.content
private fun JsonObject.number(name: String) = getValue(name).jsonPrimitive.double
private fun JsonElement.texts() = jsonArray.map { it.jsonPrimitive.content }

/** Texts that stand in one string with `|` between them, or in a list. */
private fun JsonElement.split() =
    if (this is JsonArray) texts() else jsonPrimitive.content.let { if (it.isEmpty()) emptyList() else it.split("|") }
private fun JsonElement.numbers() = jsonArray.map { it.jsonPrimitive.double }
private fun JsonElement.textMap() = jsonObject.mapValues { it.value.jsonPrimitive.content }

/** A Python pattern as the regular expressions of Android (ICU) and the JVM both read it. */
private fun fromPython(pattern: String, ignoreCase: Boolean = false): Regex {
    val text = pattern.replace("[^\\W_]", "[\\p{L}\\p{N}]").replace("\\w", "[\\p{L}\\p{N}_]").replace("\\W", "[^\\p{L}\\p{N}_]").replace("$", "(?=\\n?\\z)")
    return Regex(if (ignoreCase) "(?iu)$text" else text)
}

/** Whether a character is in one of the Unicode categories that begin with a letter: 'P', 'C'. */
private fun inCategory(point: Int, first: Char): Boolean = when (first) {
    'P' -> when (Character.getType(point).toByte()) {
        Character.CONNECTOR_PUNCTUATION, Character.DASH_PUNCTUATION, Character.START_PUNCTUATION,
        Character.END_PUNCTUATION, Character.INITIAL_QUOTE_PUNCTUATION, Character.FINAL_QUOTE_PUNCTUATION,
        Character.OTHER_PUNCTUATION -> true
        else -> false
    }
    else -> when (Character.getType(point).toByte()) {
        Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED -> true
        else -> false
    }
}

/** White space as Unicode defines it; Character.isWhitespace leaves out the no-break spaces. */
private fun isSpace(point: Int): Boolean =
    point in 9..13 || point == 0x20 || point == 0x85 || Character.isSpaceChar(point)

// --- tokenizer -----------------------------------------------------------------------------------------------

/** WordPiece of tokenizer.json: BertNormalizer, BertPreTokenizer, longest match first. */
class WordPiece(spec: JsonObject) {
    private val model = spec.getValue("model").jsonObject
    private val vocabulary: Map<String, Int> = model.getValue("vocab").jsonObject.mapValues { it.value.jsonPrimitive.int }
    private val prefix = model.text("continuing_subword_prefix")
    private val longest = model.getValue("max_input_chars_per_word").jsonPrimitive.int
    private val added: Map<String, Int> = spec.getValue("added_tokens").jsonArray.associate {
        it.jsonObject.text("content") to it.jsonObject.getValue("id").jsonPrimitive.int
    }
    private val special = added.values.toSet()
    private val pieces: Map<Int, String> = vocabulary.entries.associate { it.value to it.key }
    val unknown = vocabulary.getValue(model.text("unk_token"))
    val size = (vocabulary.keys + added.keys).size

    /** Words that the vocabulary holds in one piece: they are no misspellings of others. */
    val wholeWords: Set<String> = (vocabulary.keys + added.keys).filter { word -> word.codePoints().allMatch(Character::isLetter) }.toSet()

    init {
        val normalizer = spec.getValue("normalizer").jsonObject
        require(model.text("type") == "WordPiece" && normalizer.text("type") == "BertNormalizer") {
            "tokenizer.json: is not a WordPiece tokenizer with a BertNormalizer"
        }
    }

    fun id(token: String): Int = requireNotNull(added[token] ?: vocabulary[token]) { "tokenizer: token $token is missing" }

    /** Ids of a text, without marks around it. Marks of the grammar never get here: see [Grammar.pieces]. */
    fun encode(text: String): List<Int> = words(normalize(text)).flatMap(::cut)

    /** Text of ids without the grammar's marks; a full stop, comma, ? or ! joins the word before it. */
    fun decode(ids: List<Int>): String {
        val text = StringBuilder()
        ids.filter { it !in special }.forEachIndexed { at, id ->
            val piece = pieces.getValue(id)
            when {
                at == 0 -> text.append(piece)
                piece.startsWith(prefix) -> text.append(piece, prefix.length, piece.length)
                piece in JOINED -> text.append(piece)
                else -> text.append(' ').append(piece)
            }
        }
        return text.toString().trim { isSpace(it.code) }
    }

    /** Control characters go, every white space becomes a blank, Chinese characters stand alone, accents go. */
    private fun normalize(text: String): String {
        val clean = StringBuilder()
        text.codePoints().forEach { point ->
            val blank = isSpace(point)
            val tabOrLine = point == 9 || point == 10 || point == 13
            when {
                point == 0 || point == 0xFFFD || (!tabOrLine && inCategory(point, 'C')) -> Unit
                blank -> clean.append(' ')
                isChinese(point) -> clean.append(' ').appendCodePoint(point).append(' ')
                else -> clean.appendCodePoint(point)
            }
        }
        val plain = StringBuilder()
        Normalizer.normalize(clean, Normalizer.Form.NFD).codePoints().forEach { point ->
            // Letter by letter: String.lowercase knows the form of a sigma at the end of a word, the tokenizer does not.
            if (Character.getType(point).toByte() != Character.NON_SPACING_MARK) plain.appendCodePoint(Character.toLowerCase(point))
        }
        return plain.toString()
    }

    /** Words between white space; each punctuation mark is a word of its own. */
    private fun words(text: String): List<String> {
        val found = mutableListOf<String>()
        val word = StringBuilder()
        fun close() {
            if (word.isNotEmpty()) found += word.toString()
            word.clear()
        }
        text.codePoints().forEach { point ->
            when {
                isSpace(point) -> close()
                isPunctuation(point) -> {
                    close()
                    found += String(Character.toChars(point))
                }
                else -> word.appendCodePoint(point)
            }
        }
        close()
        return found
    }

    private fun cut(word: String): List<Int> {
        val points = word.codePoints().toArray()
        if (points.size > longest) return listOf(unknown)
        val ids = mutableListOf<Int>()
        var begin = 0
        while (begin < points.size) {
            var end = points.size
            var id: Int? = null
            while (end > begin && id == null) {
                val piece = String(points, begin, end - begin)
                id = vocabulary[if (begin == 0) piece else prefix + piece]
                if (id == null) end -= 1
            }
            if (id == null) return listOf(unknown)
            ids += id
            begin = end
        }
        return ids
    }

    private companion object {
        val JOINED = setOf(".", ",", "?", "!")
        val CHINESE = listOf(
            0x4E00..0x9FFF, 0x3400..0x4DBF, 0x20000..0x2A6DF, 0x2A700..0x2B73F, 0x2B740..0x2B81F, 0x2B920..0x2CEAF,
            0xF900..0xFAFF, 0x2F800..0x2FA1F,
        )

        fun isChinese(point: Int) = CHINESE.any { point in it }

        fun isPunctuation(point: Int) =
            point in 33..47 || point in 58..64 || point in 91..96 || point in 123..126 || inCategory(point, 'P')
    }
}

/** One exchange: `[CLS] question [SEP] <c:condition> <ask:intent> item [;] item [treatments] item … [end]`. */
class Grammar(private val tokenizer: WordPiece, constants: JsonObject, private val questionTokens: Int) {
    private val marks = constants.getValue("marks").jsonObject.mapValues { tokenizer.id(it.value.jsonPrimitive.content) }
    private val intents = constants.getValue("intents").jsonObject.entries.associate { tokenizer.id(it.value.jsonPrimitive.content) to it.key }
    val end = marks.getValue("end")
    val none = marks.getValue("none")
    val intentIds: Set<Int> = intents.keys
    val conditions = tokenizer.size - none

    /** Ids of a text; marks of the grammar typed by a user are plain text, never tokens. */
    private fun pieces(text: String): List<Int> =
        tokenizer.encode(text.replace("[", "[ ").replace("<c:", "< c:").replace("<ask:", "< ask:"))

    /** A text that is too long keeps its beginning and its end. */
    fun question(text: String): List<Int> {
        val ids = pieces(text)
        val room = questionTokens - 2
        val head = room * 2 / 3
        val kept = if (ids.size > room) ids.take(head) + ids.takeLast(room - head) else ids
        return listOf(marks.getValue("user")) + kept + marks.getValue("answer")
    }

    fun unknownShare(ids: List<Int>): Double {
        val inner = ids.subList(1, ids.size - 1)
        return if (inner.isEmpty()) 1.0 else inner.count { it == tokenizer.unknown }.toDouble() / inner.size
    }

    class Item(val text: String, val begin: Int, val end: Int)
    class Spoken(val intent: String, val symptoms: List<Item>, val treatments: List<Item>)

    /** Read back the tokens that follow the condition token. */
    fun read(ids: List<Int>): Spoken {
        val lists = listOf(mutableListOf<Item>(), mutableListOf())
        var which = 0
        var begin = 1
        for (at in 1..ids.size) {
            val token = if (at < ids.size) ids[at] else end
            if (token != marks["item"] && token != marks["treatments"] && token != end) continue
            val text = if (begin < at) tokenizer.decode(ids.subList(begin, at)) else ""
            if (text.isNotEmpty() && lists[which].none { it.text == text }) lists[which] += Item(text, begin, at)
            begin = at + 1
            if (token == marks["treatments"]) which = 1
            if (token == end) break
        }
        return Spoken(intents[ids.firstOrNull()] ?: "none", lists[0], lists[1])
    }
}

// --- engine --------------------------------------------------------------------------------------------------

/** The three signatures of the .tflite; tensors are direct buffers in the processor's own byte order. */
class Engine(model: File, threads: Int = 1) : AutoCloseable {
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
    val questionTokens: Int = interpreter.getInputTensorFromSignature("tokens", "prefill").shape()[1]
    private val caches = interpreter.getSignatureInputs("decode").filter { it.startsWith("k_") || it.startsWith("v_") }
    private val answers = interpreter.getSignatureInputs("decode").filter { it.startsWith("ka_") || it.startsWith("va_") }
    private val answerTokens: Int = interpreter.getInputTensorFromSignature(answers.first(), "decode").shape()[2]
    private val probabilities = output("probabilities", "prefill")
    private val novelty = output("novelty", "prefill")
    private val logits = output("logits", "decode")
    private val cache: Map<String, ByteBuffer> = (caches + answers).associateWith { name ->
        bytes(interpreter.getInputTensorFromSignature(name, "decode").shape().fold(4, Int::times))
    }

    class Ranked(val probabilities: DoubleArray, val novelty: Double)

    private fun bytes(count: Int): ByteBuffer = ByteBuffer.allocateDirect(count).order(ByteOrder.nativeOrder())

    private fun output(name: String, signature: String) =
        bytes(interpreter.getOutputTensorFromSignature(name, signature).shape().fold(4, Int::times))

    private fun numbers(values: List<Int>, size: Int = values.size): ByteBuffer =
        bytes(4 * size).also { buffer -> values.forEachIndexed { at, value -> buffer.putInt(4 * at, value) } }

    /** LiteRT puts what it gives behind a buffer's position. */
    private fun run(signature: String, inputs: Map<String, ByteBuffer>, outputs: Map<String, ByteBuffer>) {
        (inputs.values + outputs.values).forEach { it.rewind() }
        interpreter.runSignature(inputs, outputs, signature)
        outputs.values.forEach { it.rewind() }
    }

    private fun floats(buffer: ByteBuffer) = DoubleArray(buffer.capacity() / 4) { buffer.getFloat(4 * it).toDouble() }

    /** Run a question into the cache; [generate] goes on from there. */
    fun prefill(ids: List<Int>): Ranked {
        require(ids.size in 1..questionTokens) { "a question has 1 to $questionTokens tokens, not ${ids.size}" }
        val inputs = mapOf("tokens" to numbers(ids, questionTokens), "length" to numbers(listOf(ids.size)))
        val outputs = mapOf("probabilities" to probabilities, "novelty" to novelty) + caches.associateWith(cache::getValue)
        run("prefill", inputs, outputs)
        return Ranked(floats(probabilities), floats(novelty)[0])
    }

    class Token(val id: Int, val logProbability: Double)

    /** Greedy decoding after a condition token; the first step chooses among the intents. */
    fun generate(length: Int, condition: Int, end: Int, allowed: Set<Int>): List<Token> {
        for (name in answers) for (at in 0 until cache.getValue(name).capacity() / 4) cache.getValue(name).putFloat(4 * at, 0f)
        val tokens = mutableListOf<Token>()
        var token = condition
        while (tokens.size < answerTokens) {
            val step = mapOf(
                "token" to numbers(listOf(token)), "length" to numbers(listOf(length)), "step" to numbers(listOf(tokens.size)),
            )
            run("decode", step + cache, mapOf("logits" to logits) + answers.associateWith(cache::getValue))
            val row = floats(logits)
            if (tokens.isEmpty()) for (id in row.indices) if (id !in allowed) row[id] = -1e9
            token = row.indices.maxByOrNull { row[it] }!!
            tokens += Token(token, -ln(row.sumOf { exp(it - row[token]) }))
            if (token == end) break
        }
        return tokens
    }

    override fun close() = interpreter.close()
}

// --- confidence ----------------------------------------------------------------------------------------------

/** confidence.json: temperature for the ranking, logistic regression for the confidence, thresholds of the flag. */
class Calibrator(values: JsonObject) {
    private val temperature = values.number("temperature")
    private val mean = values.getValue("mean").numbers()
    private val scale = values.getValue("scale").numbers()
    private val weights = values.getValue("weights").numbers()
    private val bias = values.number("bias")
    val threshold = values.number("threshold")

    private fun logOdds(p: Double) = p.coerceIn(1e-6, 1 - 1e-6).let { ln(it / (1 - it)) }

    /** Features in the order of `features`: top, margin, entropy, none, novelty, unknown, length. */
    fun features(probabilities: DoubleArray, novelty: Double, unknown: Double, pieces: Int): List<Double> {
        val known = probabilities.drop(1).sortedDescending()
        return listOf(
            logOdds(known[0]),
            ln((known[0] + 1e-6) / (known.getOrElse(1) { 0.0 } + 1e-6)),
            -probabilities.sumOf { it * ln(it + 1e-12) },
            logOdds(probabilities[0]),
            novelty,
            unknown,
            ln1p(pieces.toDouble()),
        )
    }

    fun confidence(features: List<Double>): Double =
        1 / (1 + exp(-(bias + features.indices.sumOf { (features[it] - mean[it]) / scale[it] * weights[it] })))

    /** The probabilities that are shown: the logarithms are divided by the temperature. */
    fun soften(probabilities: DoubleArray): DoubleArray {
        val logits = probabilities.map { ln(max(it, 1e-12)) / temperature }
        val highest = logits.max()
        val raised = logits.map { exp(it - highest) }
        return raised.map { it / raised.sum() }.toDoubleArray()
    }
}

// --- red flags -----------------------------------------------------------------------------------------------

/** Equal, a simple inflection, or misspelt by one (from five letters) or two (from eight) letters. */
fun sameWord(word: String, wanted: String): Boolean {
    if (sameInflected(word, wanted)) return true
    var room = if (wanted.length >= 8) 2 else if (wanted.length >= 5) 1 else 0
    if (word.take(1) != wanted.take(1)) room = if (wanted.length >= 8) min(room, 1) else 0
    if (room == 0 || abs(word.length - wanted.length) > room) return false
    return distance(word, wanted, room) <= room
}

private fun sameInflected(word: String, wanted: String) = word == wanted || (word.length > 3 && form(word) == form(wanted))

private fun form(word: String): String {
    if (word.endsWith("ies") && word.length > 4) return word.dropLast(3) + "y"
    for (ending in listOf("ing", "in", "ed")) {
        if (word.endsWith(ending) && word.length - ending.length >= 4) return word.dropLast(ending.length) + "~"
    }
    return word.trimEnd('s')
}

/** Optimal string alignment distance, cut off above [most]. */
private fun distance(a: String, b: String, most: Int): Int {
    var before = IntArray(0)
    var row = IntArray(b.length + 1) { it }
    for (i in 1..a.length) {
        val older = before
        before = row
        row = IntArray(b.length + 1)
        row[0] = i
        for (j in 1..b.length) {
            var cost = minOf(before[j] + 1, row[j - 1] + 1, before[j - 1] + if (a[i - 1] == b[j - 1]) 0 else 1)
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) cost = min(cost, older[j - 2] + 1)
            row[j] = cost
        }
        if (row.min() > most) return most + 1
    }
    return row.last()
}

/** The rules of knowledge.json, with the word lists and patterns of constants.json. */
class RedFlags(rules: JsonArray, constants: JsonObject, private val ordinary: Set<String>) {
    private class Rule(val name: String, val advice: String, val patterns: List<List<List<String>>>)
    class Fired(val name: String, val advice: String)

    private val rules = rules.map { it.jsonObject }.map { rule ->
        Rule(rule.text("name"), rule.text("advice"), rule.getValue("patterns").jsonArray.map { p -> p.jsonArray.map { it.texts() } })
    }
    private fun JsonObject.words(name: String) = getValue(name).texts().toSet()
    private val window = constants.getValue("window").jsonPrimitive.int
    private val negations = constants.words("negations")
    private val farReaching = constants.words("farReaching")
    private val afterwards = constants.words("afterwards")
    private val reset = constants.words("reset")
    private val manner = constants.words("manner")
    private val self = constants.words("self")
    private val looksOn = constants.words("looksOn")
    private val hypothetical = constants.words("hypothetical")
    private val written = constants.getValue("written").textMap()
    private val past = Regex(constants.text("past"))
    private val now = Regex(constants.text("now"))
    private val told = Regex(constants.text("told"))
    private val nose = Regex(constants.text("nose"))
    private val someone = fromPython("(?<![\\w])(?:i|my|he|she|his|her)(?![\\w])")

    private fun plain(text: String) = text.lowercase().replace('’', '\'')

    /** Lower-case words; clause marks are words of their own. */
    fun words(text: String): List<String> = WORD.findAll(plain(text)).map { written[it.value] ?: it.value }.toList()

    /** Places in the words before which a comma stands. */
    private fun commas(text: String): Set<Int> {
        var at = 0
        val found = mutableSetOf<Int>()
        for (piece in COMMA_OR_WORD.findAll(plain(text))) if (piece.value == ",") found += at else at += 1
        return found
    }

    /** Red flags in a text, in the order of the rules. */
    fun check(text: String): List<Fired> {
        val passage = Passage(words(text), commas(text))
        val lower = text.lowercase()
        if (passage.words.isEmpty() || hypothetical.any { it in lower } && !someone.containsMatchIn(lower)) return emptyList()
        return rules.filter { rule -> rule.patterns.any { matches(it.map { group -> group.flatMap(passage::places) }) } }
            .map { Fired(it.name, it.advice) }
    }

    /** Whether every group has a place within the window of one place of the first group. */
    private fun matches(groups: List<List<Int>>): Boolean = groups.all { it.isNotEmpty() } &&
        groups[0].any { first -> groups.drop(1).all { group -> group.any { abs(it - first) <= window } } }

    /** One text, in which every phrase is looked for once. */
    private inner class Passage(val words: List<String>, val commas: Set<Int>) {
        private val found = HashMap<String, List<Int>>()
        private val spots = HashMap<String, Set<Int>>()

        fun places(phrase: String): List<Int> = found.getOrPut(phrase) {
            val wanted = words(phrase)
            words.indices.filter { at ->
                wanted.indices.all { k -> at + k in spotsOf(wanted[k]) } && !negated(at) && !past(at) &&
                    !told(at, wanted.size) && !deniedAfterwards(at, wanted.size)
            }
        }

        /** An ordinary word stands for itself and its inflections alone. */
        private fun spotsOf(wanted: String): Set<Int> = spots.getOrPut(wanted) {
            words.indices.filter { if (words[it] in ordinary) sameInflected(words[it], wanted) else readAs(words[it], wanted) }.toSet()
        }

        private fun readAs(word: String, wanted: String): Boolean {
            if (sameWord(word, wanted)) return true
            val short = wanted.length == 4 && word.length in 3..5 && wanted.all { it in 'a'..'z' }
            return short && word[0] == wanted[0] && distance(word, wanted, 1) <= 1
        }

        private fun ends(word: String) = word in STOPS || word in reset

        private fun commaBetween(back: Int, at: Int) = commas.any { back < it && it <= at }

        /** Up to four words before in the same clause; far-reaching ones and lists up to thirteen. */
        private fun negated(at: Int): Boolean {
            for (back in at - 1 downTo max(0, at - 4)) {
                if (ends(words[back])) return false
                if (words[back] in negations) return !commaBetween(back, at) || listsAlternatives(back)
            }
            for (back in at - 1 downTo max(0, at - 13)) {
                if (ends(words[back])) return false
                if (words[back] in farReaching) return true
                if (words[back] in setOf("no", "nor") && commaBetween(back, at)) return listsAlternatives(back)
            }
            return false
        }

        private fun listsAlternatives(begin: Int): Boolean =
            words.drop(begin).takeWhile { !ends(it) }.any { it == "or" || it == "nor" }

        private fun clause(at: Int): IntRange {
            var begin = at
            var end = at
            while (begin > 0 && !ends(words[begin - 1])) begin -= 1
            while (end < words.size && !ends(words[end])) end += 1
            return begin until end
        }

        private fun text(range: IntRange) = range.joinToString(" ") { words[it] }

        /** First word and last word (exclusive) of every mark in a clause. */
        private fun marks(pattern: Regex, clause: IntRange): List<Pair<Int, Int>> {
            val text = text(clause)
            fun blanks(until: Int) = text.substring(0, until).count { it == ' ' }
            return pattern.findAll(text).map {
                Pair(clause.first + blanks(it.range.first), clause.first + blanks(it.range.last + 1) + 1)
            }.toList()
        }

        private fun distanceTo(marks: List<Pair<Int, Int>>, at: Int) =
            marks.minOfOrNull { (first, last) -> if (at < first) first - at else max(0, at - last + 1) } ?: 999

        /** A mark of the past after "since" or "for" tells how long it has lasted. */
        private fun past(at: Int): Boolean {
            val clause = clause(at)
            if (nose.containsMatchIn(text(clause))) return true
            val over = marks(past, clause).filter { (first, _) ->
                words.subList(max(clause.first, first - 3), min(first + 1, words.size)).none { it == "since" || it == "for" }
            }
            return over.isNotEmpty() && distanceTo(over, at) < distanceTo(marks(now, clause), at)
        }

        /** Told of someone in a story: nobody here is named between its mark and the place. */
        private fun told(at: Int, length: Int): Boolean = marks(told, clause(at)).any { (first, last) ->
            val end = min(at + length, words.size)
            val between = if (first <= at) (if (last < end) words.subList(last, end) else emptyList()) else words.subList(at, first)
            between.indices.none { between[it] in self && between.getOrElse(it + 1) { "" } !in looksOn }
        }

        private fun deniedAfterwards(at: Int, length: Int): Boolean {
            val end = clause(at).last + 1
            val rest = if (at + length < end) text(at + length until end) else ""
            if (afterwards.any { rest == it || rest.endsWith(" $it") }) return true
            val held = words.subList(at, min(at + length, words.size)).any { it in HELD }
            return held && at + length < end && words[at + length] in manner
        }
    }

    private companion object {
        val WORD = Regex("[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\\n]")
        val COMMA_OR_WORD = Regex(",|${WORD.pattern}")
        val STOPS = setOf(".", ";", "!", "?", "\n")
        val HELD = setOf("not", "won't", "can't", "never")
    }
}

// --- alarm ---------------------------------------------------------------------------------------------------

/** Emergencies in words that no rule foresees: a linear classifier over hashed pieces of a text. */
class Alarm(values: JsonObject, constants: JsonObject) {
    private val weights = Base64.getDecoder().decode(values.text("weights"))
    private val scale = values.number("scale")
    private val bias = values.number("bias")
    private val threshold = values.number("threshold")
    private val parts = fromPython(constants.text("alarmParts"))
    private val lengths = constants.getValue("alarmShortest").jsonPrimitive.int..constants.getValue("alarmLongest").jsonPrimitive.int
    private val least = constants.getValue("alarmLeast").jsonPrimitive.int

    /** Words, neighbouring pairs, pairs with a gap of one, and pieces of words. */
    private fun pieces(text: String): Set<String> {
        val words = parts.findAll(text.lowercase().replace(Regex("['’]"), "")).map { it.value }.toList()
        val found = words.map { "w$it" }.toMutableSet()
        words.zip(words.drop(1)) { a, b -> found += "w$a $b" }
        words.zip(words.drop(2)) { a, b -> found += "s$a $b" }
        for (word in words.filter { it !in MARKS }) {
            val points = "<$word>".codePoints().toArray()
            for (length in lengths) for (begin in 0..points.size - length) found += "c" + String(points, begin, length)
        }
        return found
    }

    private fun crc32(text: String) = CRC32().apply { update(text.toByteArray()) }.value

    /** How likely a text tells of an emergency, 0–1. */
    fun probability(text: String): Double {
        val buckets = pieces(text).map { (crc32(it) % weights.size).toInt() }.toSet()
        val odds = bias + scale * buckets.sumOf { weights[it].toInt() } / sqrt(max(least, buckets.size).toDouble())
        return 1 / (1 + exp(-odds.coerceIn(-30.0, 30.0)))
    }

    fun rings(text: String) = probability(text) >= threshold

    private companion object {
        val MARKS = setOf(".", "!", "?", ";", ",")
    }
}

// --- the assistant -------------------------------------------------------------------------------------------

class Condition(val name: String, val probability: Double)
class Claim(val text: String, val confidence: Double, val grounded: Boolean)

class Answer(
    val intent: String,
    val conditions: List<Condition>,
    val symptoms: List<Claim>,
    val treatments: List<Claim>,
    val triage: String,
    val redFlags: List<RedFlags.Fired>,
    /** No rule names an emergency, and the classifier hears one: say `sounds` of constants.json first. */
    val alarmed: Boolean,
    val confidence: Double,
    val flagged: Boolean,
)

/** Answers questions with one bundle: the folder's files, and constants.json beside them or elsewhere. */
class Assistant(folder: File, constantsFile: File = File(folder, "constants.json")) : AutoCloseable {
    private class Record(val name: String, val symptoms: List<String>, val treatments: List<String>, val urgency: String)

    private val constants = read(constantsFile)
    private val engine: Engine
    val grammar: Grammar
    private val calibrator = Calibrator(read(File(folder, "confidence.json")))
    private val records: List<Record>
    private val cased: Map<String, String>
    private val phrasings: Map<String, List<String>>
    val redFlags: RedFlags
    val alarm: Alarm
    private val knownNames: Map<Int, List<List<String>>>
    private val stop = constants.getValue("stop").texts().toSet()
    private val order = constants.getValue("order").texts()
    private val enough = constants.number("enough")
    private val shown = constants.getValue("shown").jsonPrimitive.int
    private val longestQuestion = constants.getValue("longestQuestion").jsonPrimitive.int
    private val notAName = constants.getValue("notAName").texts().toSet()
    private val asked = fromPython(constants.text("asked"), ignoreCase = true)

    init {
        val manifest = read(File(folder, "manifest.json"))
        verify(folder, manifest)
        engine = Engine(File(folder, "model.${manifest.text("precision")}.tflite"))
        val tokenizer = WordPiece(read(File(folder, "tokenizer.json")))
        grammar = Grammar(tokenizer, constants, engine.questionTokens)
        val knowledge = read(File(folder, "knowledge.json"))
        val columns = knowledge.getValue("conditions").jsonObject
        val texts = knowledge.getValue("texts").jsonObject.mapValues { it.value.split() }
        val levels = knowledge.getValue("urgencies").texts()
        fun listed(column: String, at: Int) =
            columns.getValue(column).jsonArray[at].jsonArray.map { texts.getValue(column)[it.jsonPrimitive.int] }
        val titles = columns.getValue("name").split()
        records = titles.mapIndexed { at, name ->
            val level = columns.getValue("urgency").jsonArray[at].jsonPrimitive.int
            Record(name, listed("symptoms", at), listed("treatments", at), levels[level])
        }
        require(records.size + 1 == grammar.conditions) { "$folder: knowledge and tokenizer name different conditions" }
        cased = knowledge.getValue("cased").textMap()
        phrasings = texts.getValue("symptoms").zip(knowledge.getValue("phrasings").jsonArray.map { it.split() }).toMap()
        redFlags = RedFlags(knowledge.getValue("red_flags").jsonArray, constants, tokenizer.wholeWords)
        alarm = Alarm(knowledge.getValue("alarm").jsonObject, constants)
        val aliases = columns.getValue("aliases").jsonArray.flatMap { it.split() }
        val called = (texts.getValue("symptoms") + titles + aliases).map(::normal).filter { it.isNotEmpty() }
        val names = called.toSet() + knowledge.getValue("names").jsonObject.keys
        knownNames = names.map { it.split(" ") }.groupBy { it.size }
    }

    fun ask(text: String): Answer {
        require(text.isNotBlank()) { "question: is empty; describe the symptoms in a sentence" }
        require(text.codePointCount(0, text.length) <= longestQuestion) { "question: is longer than $longestQuestion characters" }
        val fired = redFlags.check(text)
        val alarmed = alarm.rings(text)
        val urgent = fired.isNotEmpty() || alarmed
        val ids = grammar.question(text)
        val ranked = engine.prefill(ids)
        val features = calibrator.features(ranked.probabilities, ranked.novelty, grammar.unknownShare(ids), ids.size)
        val confidence = calibrator.confidence(features)
        val probabilities = calibrator.soften(ranked.probabilities)
        val best = (1 until probabilities.size).sortedByDescending { probabilities[it] }
        val none = probabilities[0] >= probabilities[best[0]]
        val flagged = none || unknownName(text) != null || confidence < calibrator.threshold
        val tokens = engine.generate(ids.size, grammar.none + if (none) 0 else best[0], grammar.end, grammar.intentIds)
        val spoken = grammar.read(tokens.map { it.id })
        val record = records[best[0] - 1]
        val intent = if (none) "none" else if (spoken.intent == "none") "diagnose" else spoken.intent
        fun claims(items: List<Grammar.Item>, known: List<String>) = if (none) emptyList() else items.map { item ->
            val said = restoreCase(item.text)
            val logs = tokens.subList(item.begin, item.end).map { it.logProbability }
            Claim(said, round(exp(logs.average())), supported(said, known))
        }
        return Answer(
            intent,
            best.take(shown).map { Condition(records[it - 1].name, round(probabilities[it])) },
            claims(spoken.symptoms, record.symptoms),
            claims(spoken.treatments, record.treatments),
            if (intent in setOf("symptoms", "treatment") && !urgent) record.urgency else triage(best, probabilities, urgent, none),
            fired,
            alarmed && fired.isEmpty(),
            round(confidence),
            flagged,
        )
    }

    /** Erring to the safe side: a red flag, the alarm, or emergencies that together hold enough of the probability. */
    private fun triage(best: List<Int>, probabilities: DoubleArray, urgent: Boolean, none: Boolean): String {
        if (urgent) return "emergency"
        if (none) return "unknown"
        val mass = best.take(50).groupBy { records[it - 1].urgency }.mapValues { (_, ids) -> ids.sumOf { probabilities[it] } }
        val emergency = mass["emergency"] ?: 0.0
        if (emergency >= enough) return "emergency"
        val least = if ((mass["see_doctor"] ?: 0.0) + emergency >= enough) "see_doctor" else "unknown"
        return maxOf(records[best[0] - 1].urgency, least, compareBy(order::indexOf))
    }

    /** The condition that a question asks about by name, where that is no name of a known one. */
    fun unknownName(text: String): String? {
        val groups = asked.find(text)?.groupValues?.drop(1) ?: return null
        val name = groups.firstOrNull { it.isNotEmpty() }?.trim { isSpace(it.code) } ?: return null
        val words = normal(name).split(" ").filter { it.isNotEmpty() }
        if (words.isEmpty() || words.size > 5 || words.any { it in notAName }) return null
        for (length in words.size downTo 1) for (part in words.windowed(length)) {
            if (knownNames[length].orEmpty().any { known -> known.indices.all { sameWord(part[it], known[it]) } }) return null
        }
        return name
    }

    private fun normal(text: String) = RUN.findAll(text.lowercase()).joinToString(" ") { it.value }

    private fun content(text: String): Set<String> = normal(text).split(" ").filter { it.isNotEmpty() && it !in stop }.map {
        if (it.length > 3 && it.endsWith("s") && !it.endsWith("ss")) it.dropLast(1) else it
    }.toSet()

    private fun supported(claim: String, known: List<String>): Boolean {
        val words = content(claim)
        return words.isNotEmpty() && known.any { record -> (listOf(record) + phrasings[record].orEmpty()).any { content(it) == words } }
    }

    /** Acronyms and names get their capitals back, and punctuation its usual spacing. */
    private fun restoreCase(text: String): String {
        val tidy = text.replace(BEFORE, "$1").replace(AFTER, "$1").replace(AROUND, "$1")
        return RUN.replace(tidy) { cased[it.value] ?: it.value }
    }

    override fun close() = engine.close()

    companion object {
        private val RUN = Regex("[\\p{L}\\p{N}]+")
        private val BEFORE = Regex("\\s+([,.;:!?%)])")
        private val AFTER = Regex("([(])\\s+")
        private val AROUND = Regex("\\s*([-/'’])\\s*")

        private fun read(file: File) = Json.parseToJsonElement(file.readText()).jsonObject

        private fun round(value: Double) = (value * 10000).roundToLong() / 10000.0

        /** Format and SHA-256 of every file that the manifest names. */
        private fun verify(folder: File, manifest: JsonObject) {
            require(manifest.text("format") == "symptomchat-bundle/2") { "$folder: is not a bundle of this version" }
            for ((name, wanted) in manifest.getValue("files").textMap()) {
                val digest = MessageDigest.getInstance("SHA-256").digest(File(folder, name).readBytes())
                require(digest.joinToString("") { "%02x".format(it) } == wanted) { "${File(folder, name)}: is damaged; copy the bundle again" }
            }
        }
    }
}

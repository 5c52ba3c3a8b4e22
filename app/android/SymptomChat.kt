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
import java.util.TreeMap
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
    val text = pattern.replace("[^\\W_]", "[\\p{L}\\p{N}]").replace("[\\w-]", "[\\p{L}\\p{N}_-]").replace("\\w", "[\\p{L}\\p{N}_]").replace("\\W", "[^\\p{L}\\p{N}_]").replace("$", "(?=\\n?\\z)")
    return Regex(if (ignoreCase) "(?iu)$text" else text)
}

private val RUN = Regex("[\\p{L}\\p{N}]+")

/** Lower-case words without punctuation. */
private fun normal(text: String) = RUN.findAll(text.lowercase()).joinToString(" ") { it.value }

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
    val item = marks.getValue("item")
    val treatments = marks.getValue("treatments")
    val none = marks.getValue("none")
    val intentIds: Map<String, Int> = intents.entries.associate { it.value to it.key }
    val conditions = tokenizer.size - none

    /** Ids of a text; marks of the grammar typed by a user are plain text, never tokens. */
    fun pieces(text: String): List<Int> =
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

    /** What an answer's first token says is asked for. */
    fun intent(token: Int): String = intents.getValue(token)
}

// --- decoding ------------------------------------------------------------------------------------------------

/** Entries by their token ids; node 0 is the root. Of two with the same ids the first counts. */
class Trie(entries: List<Pair<String, List<Int>>>) {
    // Sorted, so that a tie is broken as in Python.
    private val rows = mutableListOf(TreeMap<Int, Int>())

    /** Text of the entry that is complete at a node. */
    val text = HashMap<Int, String>()

    /** Nodes of an entry from the root to the one where it is complete. */
    val paths = HashMap<String, List<Int>>()

    /** Number of entries at or below each node. */
    val count: IntArray

    init {
        for ((entry, ids) in entries) {
            if (ids.isEmpty() || entry in paths) continue
            val path = mutableListOf(0)
            for (token in ids) {
                path += rows[path.last()].getOrPut(token) {
                    rows += TreeMap<Int, Int>()
                    rows.size - 1
                }
            }
            text.putIfAbsent(path.last(), entry)
            paths[entry] = path
        }
        count = IntArray(rows.size)
        for (entry in text.values) for (node in paths.getValue(entry)) count[node] += 1
    }

    /** Tokens that go on from a node, each with the node that it leads to. */
    fun children(node: Int): Map<Int, Int> = rows[node]
}

/** The findings and the treatments that an answer may name, with the limits of constants.json. */
class Vocabulary(val grammar: Grammar, values: JsonObject, parts: List<List<String>>) {
    val tries = parts.map { texts -> Trie(texts.distinct().map { it to grammar.pieces(it) }) }
    val bonus = values.number("bonus").toFloat()
    val most = values.getValue("most").jsonArray.map { it.jsonPrimitive.int }
    val full = values.getValue("full").jsonPrimitive.int
}

/**
 * What one answer has said, and how it may go on: docs/format.md, "Decoding". [parts] are those of the record; [asked]
 * is the intent of a question by name.
 */
class Guide(private val vocabulary: Vocabulary, parts: List<List<String>>, asked: String?) {
    /** An entry that the answer has named, and the places of its tokens behind the condition token. */
    class Entry(val part: Int, val text: String, val begin: Int, val end: Int)

    val named = mutableListOf<Entry>()
    private val grammar = vocabulary.grammar
    private val tries = vocabulary.tries
    private val bonus = vocabulary.bonus
    private val intents = if (asked == null) grammar.intentIds.values.toList() else listOf(grammar.intentIds.getValue(asked))

    /** Who asks for the treatment gets no findings first. */
    private val skips = asked == "treatment" && parts[1].isNotEmpty()

    /** Nodes where an entry of the record is complete. */
    private val own = tries.mapIndexed { part, trie -> parts[part].mapNotNull { trie.paths[it]?.last() }.toSet() }

    /** At each node, how many entries are not named yet: of all, and of the record. */
    private val left = tries.map { it.count.copyOf() }
    private val wanted = tries.mapIndexed { part, trie ->
        IntArray(trie.count.size).also { for (end in own[part]) for (node in trie.paths.getValue(trie.text.getValue(end))) it[node] += 1 }
    }
    private var part = 0
    private var path = mutableListOf(0)
    private var at = 0
    private var begin = 0

    /** The entry that is complete here and was not named before. */
    private val complete: String?
        get() = tries[part].text[path.last()]?.takeIf { text -> named.none { it.part == part && it.text == text } }

    /** Tokens that may follow, each with what is added to its logit. */
    private fun options(): List<Pair<Int, Float>> {
        if (at == 0) return intents.map { it to 0f }
        if (at == 1 && skips) return listOf(grammar.treatments to 0f)
        val open = tries[part].children(path.last()).filter { (_, node) -> left[part][node] > 0 }
        return open.map { (token, node) -> token to if (wanted[part][node] > 0) bonus else 0f } + marks()
    }

    private fun marks(): List<Pair<Int, Float>> {
        val done = complete != null
        if (!done && path.size > 1) return emptyList()
        val mine = done && path.last() in own[part]
        val gain = if (mine) bonus else 0f
        val found = mutableListOf<Pair<Int, Float>>()
        val room = named.count { it.part == part } + 1 < vocabulary.most[part] && !(part == 0 && at > vocabulary.full)
        if (done && left[part][0] > 1 && room) {
            found += grammar.item to if (wanted[part][0] > (if (mine) 1 else 0)) gain else gain - bonus
        }
        if (part == 0 && left[1][0] > 0) found += grammar.treatments to if (wanted[1][0] > 0) gain else gain - bonus
        // Without any entry there is nothing to say but the end.
        if (done || left[part][0] == 0) found += grammar.end to gain
        return found
    }

    /** Go on with the token of the highest logit after the gains, and return it. */
    fun choose(logits: FloatArray): Int {
        val token = options().maxByOrNull { (token, gain) -> logits[token] + gain }!!.first
        if (at == 0 || token == grammar.item || token == grammar.treatments || token == grammar.end) {
            close()
            if (token == grammar.treatments) part = 1
            path = mutableListOf(0)
            begin = at + 1
        } else {
            path += tries[part].children(path.last()).getValue(token)
        }
        at += 1
        return token
    }

    /** Note the entry that is complete here; it is not named again. */
    private fun close() {
        val text = complete ?: return
        named += Entry(part, text, begin, at)
        for (node in path) left[part][node] -= 1
        if (path.last() in own[part]) for (node in path) wanted[part][node] -= 1
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

    private fun floats(buffer: ByteBuffer) = FloatArray(buffer.capacity() / 4) { buffer.getFloat(4 * it) }

    /** Run a question into the cache; [generate] goes on from there. */
    fun prefill(ids: List<Int>): Ranked {
        require(ids.size in 1..questionTokens) { "a question has 1 to $questionTokens tokens, not ${ids.size}" }
        val inputs = mapOf("tokens" to numbers(ids, questionTokens), "length" to numbers(listOf(ids.size)))
        val outputs = mapOf("probabilities" to probabilities, "novelty" to novelty) + caches.associateWith(cache::getValue)
        run("prefill", inputs, outputs)
        return Ranked(floats(probabilities).map { it.toDouble() }.toDoubleArray(), floats(novelty)[0].toDouble())
    }

    class Token(val id: Int, val logProbability: Double)

    /** Greedy decoding after a condition token; the guide chooses, the log-probability is that among all tokens. */
    fun generate(length: Int, condition: Int, end: Int, guide: Guide): List<Token> {
        for (name in answers) for (at in 0 until cache.getValue(name).capacity() / 4) cache.getValue(name).putFloat(4 * at, 0f)
        val tokens = mutableListOf<Token>()
        var token = condition
        while (tokens.size < answerTokens) {
            val step = mapOf(
                "token" to numbers(listOf(token)), "length" to numbers(listOf(length)), "step" to numbers(listOf(tokens.size)),
            )
            run("decode", step + cache, mapOf("logits" to logits) + answers.associateWith(cache::getValue))
            val row = floats(logits)
            token = guide.choose(row)
            val highest = row.max().toDouble()
            tokens += Token(token, row[token] - highest - ln(row.sumOf { exp(it - highest) }))
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

// --- the patient's clauses -----------------------------------------------------------------------------------

/** What in a text is the patient's, and is now: symptomchat/runtime/patient.py says what stays and why. */
class Patient(values: JsonObject, findings: List<String>, conditions: List<String>, aliases: Set<String>) {
    private class Clause(val begin: Int, val end: Int, val text: String)

    private val patterns = values.getValue("patterns").jsonObject
    private val somebody = pattern("somebody")
    private val stranger = pattern("stranger")
    private val caredFor = pattern("caredFor")
    private val anyone = pattern("anyone")
    private val first = pattern("first")
    private val singular = pattern("singular")
    private val being = pattern("being")
    private val worry = pattern("worry")
    private val report = pattern("report")
    private val third = pattern("third")
    private val over = pattern("over")
    private val ended = pattern("ended")
    private val lasts = pattern("lasts")
    private val counts = pattern("counts")
    private val cut = pattern("cut")
    private val place = pattern("place")
    private val letter = fromPython("\\w")
    private val trailing = fromPython(values.text("trailing"))
    private val shortest = values.getValue("shortestWord").jsonPrimitive.int
    private val enough = values.getValue("enoughTold").jsonPrimitive.int
    private val early = values.getValue("early").jsonPrimitive.int
    private val stems: Set<String>
    private val names: Set<String>
    private val longest: Int

    init {
        val words = findings.flatMap(::telling).toSet()
        stems = words.map(::stem).toSet()
        val single = aliases.filter { ' ' !in it && it.length >= shortest && it !in words }
        names = conditions.map(::normal).toSet() + single + values.getValue("shortNames").texts()
        longest = names.maxOf { it.split(" ").size }
    }

    private fun pattern(name: String) = fromPython(patterns.text(name))

    private fun telling(text: String) = normal(text).split(" ").filter { it.length >= shortest }

    private fun stem(word: String) = if (word.length > 3) form(word) else word

    /** The text that the ranking reads: the text itself, or what remains of it. */
    fun own(text: String): String {
        val left = leftOut(text)
        if (left.isEmpty()) return text
        val kept = StringBuilder(text)
        for (range in left.reversed()) kept.delete(range.first, range.last + 1)
        return trailing.replace(kept.trim { isSpace(it.code) }, "")
    }

    /** Places of the clauses that are another person's or over. */
    fun leftOut(text: String): List<IntRange> {
        // Letter by letter, so that places stay where they were.
        val low = StringBuilder().apply { text.codePoints().forEach { appendCodePoint(Character.toLowerCase(it)) } }.toString().replace('’', '\'')
        if (!first.containsMatchIn(low)) return emptyList()
        val clauses = clauses(low)
        if (clauses.size < 2) return emptyList()
        val late = clauses.indices.map { it > 0 && isOver(clauses[it].text) }
        // Where a text begins with somebody, that is the patient, and only strangers are told apart.
        val opened = clauses[0].text.let { somebody.containsMatchIn(it) || caredFor.containsMatchIn(it) }
        val someOwn = !opened && clauses.indices.any { !late[it] && isOwn(clauses[it].text) }
        if (!someOwn && clauses.none { caredFor.containsMatchIn(it.text) }) return emptyList()
        val pattern = if (someOwn) somebody else stranger
        val gone = clauses.indices.filter { it > 0 && (late[it] || isSomebodys(clauses[it].text, pattern)) }
        // Something that can be ranked must remain.
        if (clauses.indices.none { it !in gone && told(clauses[it].text) > 0 }) return emptyList()
        return gone.map { clauses[it].begin until clauses[it].end }
    }

    /** Clauses of a text, each with the mark or word that ends it. */
    private fun clauses(low: String): List<Clause> {
        val found = mutableListOf<Clause>()
        var begin = 0
        for (end in cut.findAll(low).map { it.range.last + 1 } + low.length) {
            val text = low.substring(begin, end)
            if (!letter.containsMatchIn(text)) continue
            found += Clause(begin, end, text)
            begin = end
        }
        return found
    }

    /** Number of different words in a clause that stand in a finding's name. */
    private fun told(clause: String) = telling(clause).map(::stem).toSet().count { it in stems }

    /** Whether the writer tells a finding of their own. */
    private fun isOwn(clause: String): Boolean {
        if ('?' in clause || !singular.containsMatchIn(clause)) return false
        if (listOf(third, worry, somebody).any { it.containsMatchIn(clause) }) return false
        return (!anyone.containsMatchIn(clause) || being.containsMatchIn(clause)) && told(clause) > 0
    }

    /** Whether a clause tells what another person has, and neither a condition nor what that person reports. */
    private fun isSomebodys(clause: String, pattern: Regex): Boolean {
        val match = pattern.find(clause) ?: return false
        if (told(clause) < enough) return false
        val rest = place.replace(clause.substring(match.range.last + 1), " ")
        if (first.containsMatchIn(rest) || counts.containsMatchIn(rest) || namesCondition(rest)) return false
        return !report.containsMatchIn(rest) || third.containsMatchIn(rest)
    }

    /** Whether a clause tells what the patient once had, and no condition by its name. */
    private fun isOver(clause: String): Boolean {
        val mark = over.find(clause) ?: return false
        if (clause.codePointCount(0, mark.range.first) > early || told(clause) < enough || namesCondition(clause)) return false
        return ended.containsMatchIn(clause) || !lasts.containsMatchIn(clause)
    }

    /** Family history, a contact, or what is known of the patient. */
    private fun namesCondition(clause: String): Boolean {
        val words = normal(clause).split(" ")
        return (1..min(longest, words.size)).any { length -> words.windowed(length).any { it.joinToString(" ") in names } }
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
    /** Clauses of the question that were not ranked: another person's, or long over. */
    val leftOut: List<String>,
)

/** Answers questions with one bundle: the folder's files, and constants.json beside them or elsewhere. */
class Assistant(folder: File, constantsFile: File = File(folder, "constants.json")) : AutoCloseable {
    private class Record(val name: String, val symptoms: List<String>, val treatments: List<String>, val urgency: String) {
        val parts = listOf(symptoms, treatments)
    }

    private val constants = read(constantsFile)
    private val engine: Engine
    val grammar: Grammar
    private val calibrator = Calibrator(read(File(folder, "confidence.json")))
    private val records: List<Record>
    private val phrasings: Map<String, List<String>>
    val redFlags: RedFlags
    val alarm: Alarm
    val patient: Patient
    private val vocabulary: Vocabulary
    private val knownNames: Map<Int, List<List<String>>>

    /** Names of conditions that are no finding's, and the places of the conditions from 1. */
    private val numbers: Map<String, Int>
    private val stop = constants.getValue("stop").texts().toSet()
    private val order = constants.getValue("order").texts()
    private val enough = constants.number("enough")
    private val shown = constants.getValue("shown").jsonPrimitive.int
    private val longestQuestion = constants.getValue("longestQuestion").jsonPrimitive.int
    private val notAName = constants.getValue("notAName").texts().toSet()
    private val asked = fromPython(constants.text("asked"), ignoreCase = true)
    private val asking = fromPython(constants.text("asking"), ignoreCase = true)
    private val case = fromPython(constants.text("case"), ignoreCase = true)
    private val treated = fromPython(constants.text("treated"), ignoreCase = true)
    private val certainty = constants.number("named")

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
        phrasings = texts.getValue("symptoms").zip(knowledge.getValue("phrasings").jsonArray.map { it.split() }).toMap()
        redFlags = RedFlags(knowledge.getValue("red_flags").jsonArray, constants, tokenizer.wholeWords)
        alarm = Alarm(knowledge.getValue("alarm").jsonObject, constants)
        val findings = texts.getValue("symptoms")
        // The first of equals counts: all names before all aliases.
        val called = LinkedHashMap<String, Int>()
        titles.forEachIndexed { at, name -> called.putIfAbsent(normal(name), at + 1) }
        columns.getValue("aliases").jsonArray.forEachIndexed { at, aliases -> aliases.split().forEach { called.putIfAbsent(normal(it), at + 1) } }
        called.remove("")
        for ((name, title) in knowledge.getValue("names").textMap()) called[name] = titles.indexOf(title) + 1
        knownNames = (called.keys + findings.map(::normal)).map { it.split(" ") }.groupBy { it.size }
        numbers = called - (findings + phrasings.values.flatten()).map(::normal).toSet()
        patient = Patient(constants.getValue("patient").jsonObject, findings, titles, called.keys)
        val parts = listOf(records.flatMap { it.symptoms }, records.flatMap { it.treatments })
        vocabulary = Vocabulary(grammar, constants.getValue("decoding").jsonObject, parts)
    }

    /** Token ids of what the model reads of a question: the patient's own clauses. */
    fun encode(text: String): List<Int> = grammar.question(patient.own(text))

    fun ask(text: String): Answer {
        require(text.isNotBlank()) { "question: is empty; describe the symptoms in a sentence" }
        require(text.codePointCount(0, text.length) <= longestQuestion) { "question: is longer than $longestQuestion characters" }
        val fired = redFlags.check(text)
        val alarmed = alarm.rings(text)
        val urgent = fired.isNotEmpty() || alarmed
        val ids = encode(text)
        val ranked = engine.prefill(ids)
        val number = named(text)
        if (number != null) {
            // A name is no guess: what the ranking makes of its words keeps a small share.
            for (at in ranked.probabilities.indices) ranked.probabilities[at] *= 1 - certainty
            ranked.probabilities[number] += certainty
        }
        val features = calibrator.features(ranked.probabilities, ranked.novelty, grammar.unknownShare(ids), ids.size)
        val confidence = calibrator.confidence(features)
        val probabilities = calibrator.soften(ranked.probabilities)
        val best = (1 until probabilities.size).sortedByDescending { probabilities[it] }
        val none = probabilities[0] >= probabilities[best[0]]
        val flagged = none || unknownName(text) != null || confidence < calibrator.threshold
        val record = records[best[0] - 1]
        val guide = Guide(vocabulary, record.parts, if (number == null) null else if (treated.containsMatchIn(text)) "treatment" else "symptoms")
        // Nothing is told of what fits nothing that is known.
        val tokens = if (none) emptyList() else engine.generate(ids.size, grammar.none + best[0], grammar.end, guide)
        val intent = if (none) "none" else grammar.intent(tokens[0].id).takeIf { it != "none" } ?: "diagnose"
        fun claims(part: Int) = guide.named.filter { it.part == part }.map { entry ->
            val logs = tokens.subList(entry.begin, entry.end).map { it.logProbability }
            Claim(entry.text, round(exp(logs.average())), supported(entry.text, record.parts[part]))
        }
        return Answer(
            intent,
            best.take(shown).map { Condition(records[it - 1].name, round(probabilities[it])) },
            claims(0),
            claims(1),
            if (intent in setOf("symptoms", "treatment") && !urgent) record.urgency else triage(best, probabilities, urgent, none),
            fired,
            alarmed && fired.isEmpty(),
            round(confidence),
            flagged,
            patient.leftOut(text).map { range -> text.substring(range).trim { isSpace(it.code) } },
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

    /** The name of the condition that a question asks about, where its form shows one. */
    private fun askedName(text: String): String? =
        asked.find(text)?.groupValues?.drop(1)?.firstOrNull { it.isNotEmpty() }?.trim { isSpace(it.code) }

    /** Number (from 1) of the condition that a question asks about by name, without telling a case. */
    fun named(text: String): Int? {
        val name = normal(text).takeIf { it in numbers } ?: askedName(text) ?: return null
        if (case.containsMatchIn(asking.replace(text, " "))) return null
        val words = normal(name).split(" ")
        numbers[words.joinToString(" ")]?.let { return it }
        val alike = knownNames[words.size].orEmpty().filter { known -> known.indices.all { sameWord(words[it], known[it]) } }
        return alike.mapNotNull { numbers[it.joinToString(" ")] }.distinct().singleOrNull()
    }

    /** The condition that a question asks about by name, where that is no name of a known one. */
    fun unknownName(text: String): String? {
        val name = askedName(text) ?: return null
        val words = normal(name).split(" ").filter { it.isNotEmpty() }
        if (words.isEmpty() || words.size > 5 || words.any { it in notAName }) return null
        for (length in words.size downTo 1) for (part in words.windowed(length)) {
            if (knownNames[length].orEmpty().any { known -> known.indices.all { sameWord(part[it], known[it]) } }) return null
        }
        return name
    }

    private fun content(text: String): Set<String> = normal(text).split(" ").filter { it.isNotEmpty() && it !in stop }.map {
        if (it.length > 3 && it.endsWith("s") && !it.endsWith("ss")) it.dropLast(1) else it
    }.toSet()

    private fun supported(claim: String, known: List<String>): Boolean {
        val words = content(claim)
        return words.isNotEmpty() && known.any { record -> (listOf(record) + phrasings[record].orEmpty()).any { content(it) == words } }
    }

    override fun close() = engine.close()

    companion object {
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

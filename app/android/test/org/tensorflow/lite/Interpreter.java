package org.tensorflow.lite;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Stand-in for LiteRT's class of this name on a machine without Android: the same calls with the same types, each
 * forward pass done by the Python LiteRT at the other end of two named pipes in the folder SYMPTOMCHAT_FORWARD.
 * Like the real one it writes outputs at a buffer's position and moves it.
 */
public class Interpreter implements AutoCloseable {
    public static class Options {
        public Options setNumThreads(int threads) {
            return this;
        }
    }

    private final OutputStream requests;
    private final DataInputStream replies;
    private final Map<String, Map<String, int[]>> inputs = new HashMap<>();
    private final Map<String, Map<String, int[]>> outputs = new HashMap<>();

    public Interpreter(File model, Options options) {
        String folder = System.getenv("SYMPTOMCHAT_FORWARD");
        try {
            requests = new FileOutputStream(new File(folder, "requests"));
            replies = new DataInputStream(new BufferedInputStream(new FileInputStream(new File(folder, "replies")), 1 << 20));
            requests.write(("open " + model + "\n").getBytes(StandardCharsets.UTF_8));
            // One line for each tensor: signature, "in" or "out", name, sizes.
            for (String line = line(); !line.isEmpty(); line = line()) {
                String[] words = line.split(" ");
                int[] shape = new int[words.length - 3];
                for (int at = 0; at < shape.length; at++) {
                    shape[at] = Integer.parseInt(words[at + 3]);
                }
                (words[1].equals("in") ? inputs : outputs)
                        .computeIfAbsent(words[0], key -> new LinkedHashMap<>()).put(words[2], shape);
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private String line() throws IOException {
        StringBuilder text = new StringBuilder();
        for (int value = replies.readUnsignedByte(); value != '\n'; value = replies.readUnsignedByte()) {
            text.append((char) value);
        }
        return text.toString();
    }

    private static int[] find(Map<String, Map<String, int[]>> tensors, String name, String signature) {
        int[] shape = tensors.getOrDefault(signature, Map.of()).get(name);
        if (shape == null) {
            throw new IllegalArgumentException("Input error: '" + name + "' is not a tensor of signature " + signature);
        }
        return shape;
    }

    public Tensor getInputTensorFromSignature(String inputName, String signatureKey) {
        int[] shape = find(inputs, inputName, signatureKey);
        return () -> shape;
    }

    public Tensor getOutputTensorFromSignature(String outputName, String signatureKey) {
        int[] shape = find(outputs, outputName, signatureKey);
        return () -> shape;
    }

    public String[] getSignatureInputs(String signatureKey) {
        return inputs.get(signatureKey).keySet().toArray(new String[0]);
    }

    public void runSignature(Map<String, Object> given, Map<String, Object> wanted, String signatureKey) {
        try {
            if (!given.keySet().equals(inputs.get(signatureKey).keySet())) {
                throw new IllegalArgumentException("Input error: signature " + signatureKey + " wants " + inputs.get(signatureKey).keySet());
            }
            StringBuilder head = new StringBuilder("run ").append(signatureKey);
            given.forEach((name, value) -> head.append(' ').append(name));
            head.append('\n');
            requests.write(head.toString().getBytes(StandardCharsets.UTF_8));
            for (Map.Entry<String, Object> entry : given.entrySet()) {
                requests.write(bytes((ByteBuffer) entry.getValue(), find(inputs, entry.getKey(), signatureKey)));
            }
            // The reply holds every output in the order in which they were described.
            for (Map.Entry<String, int[]> entry : outputs.get(signatureKey).entrySet()) {
                byte[] content = new byte[size(entry.getValue())];
                replies.readFully(content);
                if (wanted.get(entry.getKey()) != null) {
                    ((ByteBuffer) wanted.get(entry.getKey())).put(content);
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static int size(int[] shape) {
        int bytes = 4;
        for (int size : shape) {
            bytes *= size;
        }
        return bytes;
    }

    private static byte[] bytes(ByteBuffer buffer, int[] shape) {
        if (!buffer.isDirect() || buffer.capacity() != size(shape)) {
            throw new IllegalArgumentException("Input error: a direct buffer of " + size(shape) + " bytes is wanted");
        }
        byte[] content = new byte[buffer.capacity()];
        buffer.duplicate().rewind().get(content);
        return content;
    }

    @Override
    public void close() {
        try {
            requests.close();
            replies.close();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}

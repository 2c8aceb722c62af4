// A client of the proxy on java.net.http.HttpClient.
//
// Arguments: the proxy's port, the URL of an HTTPS origin, that of an HTTP origin. The proxy's CA is in the default trust store.
// It prints what it got as JSON.

import java.io.ByteArrayInputStream;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class JavaClient {
    static HttpClient client;
    static String origin;

    static String digest(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    static byte[] body() {
        byte[] data = new byte[200000];
        for (int i = 0; i < data.length; i++) data[i] = (byte) (i % 251);
        return data;
    }

    static HttpRequest.Builder request(String url, String method, BodyPublisher content) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20)).method(method, content);
    }

    static HttpResponse<byte[]> ask(String method, String path, BodyPublisher content) throws Exception {
        return client.send(request(origin + path, method, content).build(), BodyHandlers.ofByteArray());
    }

    static String digestSeenBy(HttpResponse<byte[]> echoed) {
        Matcher found = Pattern.compile("\"body_sha256\": \"([0-9a-f]+)\"").matcher(new String(echoed.body()));
        return found.find() ? found.group(1) : "";
    }

    public static void main(String[] arguments) throws Exception {
        InetSocketAddress proxy = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        origin = arguments[1];
        client = HttpClient.newBuilder().proxy(ProxySelector.of(proxy)).connectTimeout(Duration.ofSeconds(20)).build();
        List<String> got = new ArrayList<>();

        got.add("\"get\": \"" + digest(ask("GET", "/bytes/100000", BodyPublishers.noBody()).body()) + "\"");
        got.add("\"chunked\": \"" + digest(ask("GET", "/chunked/70000/9?trailers", BodyPublishers.noBody()).body()) + "\"");
        got.add("\"posted\": \"" + digestSeenBy(ask("POST", "/echo", BodyPublishers.ofByteArray(body()))) + "\"");
        // a stream of unknown length is sent chunked
        BodyPublisher stream = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body()));
        got.add("\"streamed\": \"" + digestSeenBy(ask("POST", "/echo", stream)) + "\"");
        long head = ask("HEAD", "/bytes/5000", BodyPublishers.noBody()).headers().firstValueAsLong("content-length").orElse(-1);
        got.add("\"head\": " + head);
        List<String> statuses = new ArrayList<>();
        for (int status : new int[] {204, 304, 404, 500}) {
            statuses.add(String.valueOf(ask("GET", "/status/" + status, BodyPublishers.noBody()).statusCode()));
        }
        got.add("\"statuses\": [" + String.join(", ", statuses) + "]");
        HttpRequest expecting = request(origin + "/echo", "PUT", BodyPublishers.ofByteArray(body())).expectContinue(true).build();
        got.add("\"expected\": \"" + digestSeenBy(client.send(expecting, BodyHandlers.ofByteArray())) + "\"");

        List<CompletableFuture<HttpResponse<byte[]>>> waiting = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            HttpRequest one = request(origin + "/bytes/" + i * 100, "GET", BodyPublishers.noBody()).build();
            waiting.add(client.sendAsync(one, BodyHandlers.ofByteArray()));
        }
        int right = 0;
        for (int i = 0; i < 40; i++) right += waiting.get(i).get().body().length == i * 100 ? 1 : 0;
        got.add("\"parallel\": " + right);

        HttpRequest plain = request(arguments[2] + "/bytes/9", "GET", BodyPublishers.noBody()).build();
        got.add("\"plain\": \"" + digest(client.send(plain, BodyHandlers.ofByteArray()).body()) + "\"");
        System.out.println("{" + String.join(", ", got) + "}");
    }
}

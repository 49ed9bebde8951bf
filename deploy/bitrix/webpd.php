<?php
/**
 * Tells webpd of thumbnails that 1C-Bitrix made or deleted, so that nobody waits until webpd looks for them by itself.
 *
 * In /local/php_interface/init.php (or /bitrix/php_interface/init.php), with this file beside it:
 *
 *     define('WEBPD_HINT_URL', 'http://10.0.0.5:8088/hint');
 *     define('WEBPD_TOKEN', 'the same as WEBPD_TOKEN of webpd');
 *     require_once __DIR__ . '/webpd.php';
 *
 * Both may be environment variables instead. An https:// URL with a name in it takes WEBPD_HINT_ADDRESS as well, the IP
 * address of that name: looking it up could take seconds.
 *
 * What can be relied on: a page loses no more than WebpdHint::BUDGET seconds to this file, whatever becomes of webpd or
 * of the network (what runs for longer than WebpdHint::SPAN seconds, such as an import: so much in each of them); it
 * prints nothing, and no warning or exception of it ever reaches the page. A hint that is lost is only late, since webpd
 * finds what changed by itself. docs/bitrix.md tells more. PHP 7.4 and later.
 */

if (!class_exists('WebpdHint', false)) {
    final class WebpdHint
    {
        /** Seconds that one page may lose to webpd in all: 100 ms, less what a busy processor is late. */
        public const BUDGET = 0.08;
        /** Seconds after which an import, or agents run by cron, send what there is, and have the budget anew. */
        public const SPAN = 10;

        /** Most paths, and bytes of their JSON, in one hint. webpd takes 1,000 paths and 65,536 bytes. */
        private const MOST = 500;
        private const LONGEST = 60000;

        /** @var array<string, string> What webpd is yet to be told of: paths of URLs, and the same as JSON. */
        private static $paths = [];
        /** @var int Bytes of that JSON. */
        private static $bytes = 0;
        /** @var int When the present span began, as hrtime() has it. */
        private static $since = 0;
        /** @var float Seconds that may still be lost in it. */
        private static $left = self::BUDGET;
        /** @var bool Whether what is noted will be sent when the page ends. */
        private static $awaitsEnd = false;

        /** Ask Bitrix for its events, if it is set where webpd is. */
        public static function register(): void
        {
            if (self::setting('WEBPD_HINT_URL') === '') {
                return;
            }
            self::$since = hrtime(true);
            $handlers = [
                'OnAfterResizeImage' => [__CLASS__, 'onAfterResizeImage'],
                'OnPhysicalFileDelete' => [__CLASS__, 'onPhysicalFileDelete'],
            ];
            foreach ($handlers as $event => $handler) {
                if (function_exists('AddEventHandler')) {
                    AddEventHandler('main', $event, $handler);
                } elseif (class_exists('\Bitrix\Main\EventManager')) {
                    \Bitrix\Main\EventManager::getInstance()->addEventHandlerCompatible('main', $event, $handler);
                }
            }
        }

        /**
         * Note a thumbnail that CFile::ResizeImageGet has just written.
         *
         * Returns nothing: with true, Bitrix would ask no other handler.
         *
         * @param mixed $file
         * @param mixed $options
         * @param mixed $callbackData
         * @param mixed $thumbnail path of its URL; of the original where nothing was resized, a whole URL in a cloud
         */
        public static function onAfterResizeImage($file, $options, $callbackData, $thumbnail): void
        {
            self::quietly(static function () use ($thumbnail): void {
                self::note(self::physical((string) $thumbnail));
            });
        }

        /**
         * Note the thumbnails that went with a file: those whose WebP is still there, which keeps their folder.
         *
         * Bitrix calls it after it has deleted SUBDIR/SIZE/FILE_NAME of every SIZE.
         *
         * @param mixed $file row of b_file
         */
        public static function onPhysicalFileDelete($file): void
        {
            self::quietly(static function () use ($file): void {
                $upload = class_exists('COption') ? COption::GetOptionString('main', 'upload_dir', 'upload') : 'upload';
                $folder = self::physical("/$upload/resize_cache/{$file['SUBDIR']}");
                $name = self::physical($file['FILE_NAME']);
                $root = rtrim($_SERVER['DOCUMENT_ROOT'], '/');
                foreach (scandir($root . $folder) ?: [] as $size) {
                    if (preg_match('/^\d+_\d+_\d/', $size) && is_file("$root$folder/$size/$name.webp")) {
                        self::note("$folder/$size/$name");
                    }
                }
            });
        }

        /** Send what is noted, after all else that waits for the end of the page, and once the visitor has it. */
        public static function onEnd(): void
        {
            self::$awaitsEnd = false;
            register_shutdown_function(static function (): void {
                self::quietly(static function (): void {
                    foreach (['fastcgi_finish_request', 'litespeed_finish_request'] as $finish) {
                        if (function_exists($finish)) {
                            $finish();
                        }
                    }
                    self::send();
                });
            });
        }

        /**
         * Tell in words whether hints arrive, for who installs this: `echo WebpdHint::check();`
         *
         * @param string $path path of a URL of an image that webpd is told of
         */
        public static function check(string $path = '/upload/resize_cache/webpd-check.jpg'): string
        {
            $start = hrtime(true);
            $answer = self::quietly(static function () use ($path): string {
                return self::ask([self::json($path)], self::BUDGET, true);
            }, $why);
            $time = sprintf('%.1f ms', (hrtime(true) - $start) / 1e6);
            if ($answer === null) {
                return "webpd got no hint ($time): $why\n";
            }
            [$head, $body] = explode("\r\n\r\n", $answer, 2) + [1 => ''];
            $said = "webpd answered after $time: " . strtok($head, "\r\n") . ': ' . trim($body) . "\n";
            if ((json_decode($body, true)['taken'] ?? null) !== 0) {
                return $said;
            }
            return "{$said}but it will not look at $path: compare its roots and document_root (webpd config)"
                . " with that path; right after a start, or while a mount does not answer, ask again later\n";
        }

        private static function note(string $path): void
        {
            // Thumbnails alone, and none that lies in a cloud.
            $wanted = preg_match('#^/[^/].*/resize_cache/.+\.(?:jpe?g|png)$#Dis', $path);
            if (!$wanted || isset(self::$paths[$path])) {
                return;
            }
            $json = self::json($path);
            $full = count(self::$paths) >= self::MOST || self::$bytes + strlen($json) >= self::LONGEST;
            if ($full || self::isLate()) {
                self::send();
            }
            self::$paths[$path] = $json;
            self::$bytes += strlen($json) + 1;
            if (!self::$awaitsEnd) {
                self::$awaitsEnd = true;
                register_shutdown_function([__CLASS__, 'onEnd']);
            }
        }

        private static function isLate(): bool
        {
            return hrtime(true) - self::$since > self::SPAN * 1000000000;
        }

        /**
         * Return the path as JSON that is ASCII alone: with mbstring.func_overload, as PHP 7 may have it for Bitrix,
         * strlen() and substr() count characters.
         */
        private static function json(string $path): string
        {
            $json = json_encode($path, JSON_UNESCAPED_SLASHES);
            if ($json !== false) {
                return $json;
            }
            // Not UTF-8: webpd takes other bytes as the code points from U+DC80 on.
            $escaped = preg_replace_callback('/[^ !#-[\]-~]/', static function (array $found): string {
                $byte = ord($found[0]);
                return sprintf('\u%04x', $byte < 0x80 ? $byte : 0xdc00 + $byte);
            }, $path);
            return "\"$escaped\"";
        }

        private static function send(): void
        {
            $start = hrtime(true);
            if (self::isLate()) {
                self::$since = $start;
                self::$left = self::BUDGET;
            }
            $paths = self::$paths;
            self::$paths = [];
            self::$bytes = 0;
            if (!$paths || self::$left <= 0) {
                return;
            }
            try {
                self::ask($paths, self::$left, false);
            } catch (\RuntimeException $error) {
                // webpd finds them by itself.
            } finally {
                self::$left -= (hrtime(true) - $start) / 1e9;
            }
        }

        /**
         * Send one hint, and return what webpd answered: all of it, or only how it begins.
         *
         * Without an answer webpd may not have read the hint: it drops a request whose sender is gone.
         *
         * @param string[] $paths as JSON
         * @throws \RuntimeException that says why there is no answer within so many seconds
         */
        private static function ask(array $paths, float $seconds, bool $whole): string
        {
            $deadline = hrtime(true) + (int) ($seconds * 1e9);
            [$address, $certified, $head] = self::target();
            $body = '{"paths":[' . implode(',', $paths) . ']}';
            $request = "$head\r\nContent-Length: " . strlen($body) . "\r\n\r\n$body";

            $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
            $options = ['ssl' => ['peer_name' => $certified], 'socket' => ['tcp_nodelay' => true]];
            $context = stream_context_create($options);
            $stream = stream_socket_client($address, $number, $why, $seconds, $flags, $context);
            if (!$stream) {
                throw new \RuntimeException("$address: $why");
            }
            try {
                stream_set_blocking($stream, false);
                self::wait($stream, true, $deadline, "no connection to $address");
                if (stream_socket_get_name($stream, true) === false) {
                    throw new \RuntimeException("$address refuses connections");
                }
                if ($certified !== null) {
                    self::encrypt($stream, $deadline, $certified);
                }
                self::write($stream, $request, $deadline);
                return self::read($stream, $deadline, $whole);
            } finally {
                fclose($stream);
            }
        }

        /**
         * Return where to connect, the name that the certificate must have (null: no TLS), and the head of a request.
         *
         * @return array{string, ?string, string}
         */
        private static function target(): array
        {
            $url = self::setting('WEBPD_HINT_URL');
            if (!preg_match('#^(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(\d{1,5}))?(/[!-~]*)$#Di', $url, $parts)) {
                throw new \RuntimeException("WEBPD_HINT_URL=$url is not of the form http://10.0.0.5:8088/hint");
            }
            [, $scheme, $host, $port, $path] = $parts;
            $token = self::setting('WEBPD_TOKEN');
            if (!preg_match('#^[A-Za-z0-9._~+/-]{16,256}=*$#D', $token)) {
                throw new \RuntimeException('WEBPD_TOKEN is not set, or not a token of webpd');
            }
            $encrypted = strtolower($scheme) === 'https';
            $address = self::setting('WEBPD_HINT_ADDRESS') ?: (strtolower($host) === 'localhost' ? '127.0.0.1' : $host);
            if (inet_pton(trim($address, '[]')) === false) {
                throw new \RuntimeException("$address is a name: give its IP address in WEBPD_HINT_ADDRESS");
            }
            $address = strpos($address, ':') === false ? $address : '[' . trim($address, '[]') . ']';
            $head = "POST $path HTTP/1.1\r\nHost: $host" . ($port === '' ? '' : ":$port")
                . "\r\nAuthorization: Bearer $token\r\nContent-Type: application/json\r\nConnection: close";
            $port = $port === '' ? ($encrypted ? 443 : 80) : $port;
            return ["tcp://$address:$port", $encrypted ? trim($host, '[]') : null, $head];
        }

        /** @param resource $stream */
        private static function encrypt($stream, int $deadline, string $name): void
        {
            while (($done = stream_socket_enable_crypto($stream, true, STREAM_CRYPTO_METHOD_TLS_CLIENT)) === 0) {
                self::wait($stream, false, $deadline, 'no answer to the greeting of TLS');
            }
            if (!$done) {
                throw new \RuntimeException("no TLS connection with $name: is its certificate valid and known here?");
            }
        }

        /** @param resource $stream */
        private static function write($stream, string $rest, int $deadline): void
        {
            $failed = 0;
            while ($rest !== '') {
                $written = (int) fwrite($stream, $rest);
                $failed = $written > 0 ? 0 : $failed + 1;
                if ($failed > 1) { // though it was said to take more
                    throw new \RuntimeException('the connection broke');
                }
                $rest = (string) substr($rest, $written);
                if ($rest !== '') {
                    self::wait($stream, true, $deadline, 'the hint was not taken');
                }
            }
        }

        /** @param resource $stream */
        private static function read($stream, int $deadline, bool $whole): string
        {
            $answer = '';
            while ($whole || !preg_match('#^HTTP/1\.[01] \d{3}#', $answer)) {
                $part = (string) fread($stream, 4096);
                $answer .= $part;
                if ($part === '') {
                    if (stream_get_meta_data($stream)['eof']) { // feof() could wait
                        break;
                    }
                    self::wait($stream, false, $deadline, 'no answer');
                }
            }
            if ($answer === '') {
                throw new \RuntimeException('the connection was closed without an answer');
            }
            return $answer;
        }

        /**
         * Wait until the stream can be written to, or read from.
         *
         * @param resource $stream
         */
        private static function wait($stream, bool $toWrite, int $deadline, string $otherwise): void
        {
            $microseconds = intdiv($deadline - hrtime(true), 1000);
            $readable = $toWrite ? [] : [$stream];
            $writable = $toWrite ? [$stream] : [];
            $neither = [];
            if ($microseconds <= 0 || !stream_select($readable, $writable, $neither, 0, $microseconds)) {
                throw new \RuntimeException(sprintf('%s within %d ms', $otherwise, self::BUDGET * 1000));
            }
        }

        /** Return the name as the file system has it: Bitrix may work in another charset. */
        private static function physical(string $name): string
        {
            return class_exists('CBXVirtualIo') ? CBXVirtualIo::GetInstance()->GetPhysicalName($name) : $name;
        }

        private static function setting(string $name): string
        {
            return (string) (defined($name) ? constant($name) : getenv($name));
        }

        /**
         * Return what the work returns; null where it throws, with the reason. No warning of it reaches the page.
         *
         * @return mixed
         */
        private static function quietly(callable $work, ?string &$why = null)
        {
            set_error_handler(static function (): bool {
                return true;
            });
            try {
                return $work();
            } catch (\Throwable $error) {
                $why = $error->getMessage();
                return null;
            } finally {
                restore_error_handler();
            }
        }
    }

    WebpdHint::register();
}

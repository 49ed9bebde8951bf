<?php
/**
 * A page of the shop. What is to happen on it comes as JSON on the standard input:
 *
 *     root       document root
 *     handler    the file that init.php takes in, twice
 *     define     constants of init.php
 *     resize     list of [SUBDIR, FILE_NAME, width, file with the thumbnail to come of it]
 *     delete     list of [SUBDIR, FILE_NAME]
 *     first      what a handler of another module that comes first answers to OnAfterResizeImage
 *     check      say what WebpdHint::check() says
 *
 *     cost       file for what it cost, as JSON: nanoseconds spent in `handlers` and in the `end` of the page, and
 *                whether the visitor's connection was `finished` before that
 *
 * The page itself goes to the standard output, errors to the standard error.
 */

$asked = json_decode(file_get_contents('php://stdin'), true);
$_SERVER['DOCUMENT_ROOT'] = $asked['root'];
foreach ($asked['define'] as $name => $value) {
    define($name, $value);
}
require __DIR__ . '/bitrix.php';

/** Runs before all that the page leaves for its end, and, being destroyed, after it. */
final class Clock
{
    public $finished = false;
    private $start;

    public function start(): void
    {
        $this->start = hrtime(true);
    }

    public function __destruct()
    {
        global $handlersTook, $asked;
        $told = ['handlers' => $handlersTook, 'end' => hrtime(true) - $this->start, 'finished' => $this->finished];
        file_put_contents($asked['cost'], json_encode($told));
    }
}

$clock = new Clock();
register_shutdown_function([$clock, 'start']);

function fastcgi_finish_request()
{
    global $clock;
    $clock->finished = true;
    echo ob_get_clean(), 'visitor has it';
    return true;
}

ob_start();
if (isset($asked['first'])) {
    AddEventHandler('main', 'OnAfterResizeImage', static function () use ($asked) {
        return $asked['first'];
    }, 50);
}
require_once $asked['handler'];
require_once $asked['handler'];

foreach ($asked['resize'] ?? [] as [$subdir, $name, $width, $thumbnail]) {
    $size = ['width' => $width, 'height' => $width];
    echo CFile::ResizeImageGet(['SUBDIR' => $subdir, 'FILE_NAME' => $name], $size, $thumbnail)['src'], "\n";
}
foreach ($asked['delete'] ?? [] as [$subdir, $name]) {
    CFile::Delete(['SUBDIR' => $subdir, 'FILE_NAME' => $name]);
}
if ($asked['check'] ?? false) {
    echo WebpdHint::check();
}
register_shutdown_function(static function (): void {
    echo "printed at the end\n";
});
echo "page\n";

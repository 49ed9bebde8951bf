<?php
/**
 * A stand-in for what of 1C-Bitrix has to do with thumbnails. It behaves as the main module's source does: handlers by
 * their sort, a true answer ends the round where Bitrix ends it, arguments by reference, thumbnails written in two
 * phases, folders that keep a sidecar stay. Its error handler is the strictest that a site can have: whether or not a
 * warning was silenced with @, it goes to the log, and is thrown.
 */

set_error_handler(static function (int $level, string $text, string $file, int $line): bool {
    file_put_contents('php://stderr', "$text in $file:$line\n");
    throw new ErrorException($text, 0, $level, $file, $line);
});

const BX_RESIZE_IMAGE_PROPORTIONAL = 1;

/** Nanoseconds that handlers took. */
$handlersTook = 0;
$handlers = [];

function AddEventHandler($module, $event, $callback, $sort = 100, $path = false)
{
    global $handlers;
    $handlers["$module:$event"][] = ['SORT' => $sort, 'CALLBACK' => $callback, 'FULL_PATH' => $path];
    usort($handlers["$module:$event"], static function (array $one, array $other): int {
        return $one['SORT'] <=> $other['SORT'];
    });
    return count($handlers["$module:$event"]) - 1;
}

function GetModuleEvents($module, $event, $asArray = false)
{
    global $handlers;
    return $handlers["$module:$event"] ?? [];
}

function ExecuteModuleEventEx($event, $arguments = [])
{
    global $handlersTook;
    $start = hrtime(true);
    $answer = call_user_func_array($event['CALLBACK'], $arguments);
    $handlersTook += hrtime(true) - $start;
    return $answer;
}

class COption
{
    public static function GetOptionString($module, $name, $default = '')
    {
        return $name === 'upload_dir' ? 'upload' : $default;
    }
}

class CFile
{
    /** What ResizeImageGet does for an image larger than the size, with its thumbnail made by somebody else. */
    public static function ResizeImageGet(array $file, array $size, string $thumbnail)
    {
        $folder = "{$size['width']}_{$size['height']}_" . BX_RESIZE_IMAGE_PROPORTIONAL;
        $image = "/upload/{$file['SUBDIR']}/{$file['FILE_NAME']}";
        $cacheImageFile = "/upload/resize_cache/{$file['SUBDIR']}/$folder/{$file['FILE_NAME']}";
        if (file_exists($_SERVER['DOCUMENT_ROOT'] . $cacheImageFile)) {
            return ['src' => $cacheImageFile];
        }
        $cacheImageFileTmp = $_SERVER['DOCUMENT_ROOT'] . $cacheImageFile;
        $callbackData = null;
        $arImageSize = false;
        if (!self::ResizeImageFile($_SERVER['DOCUMENT_ROOT'] . $image, $cacheImageFileTmp, $thumbnail)) {
            $cacheImageFile = $image;
        }
        foreach (GetModuleEvents('main', 'OnAfterResizeImage', true) as $event) {
            $options = [$size, BX_RESIZE_IMAGE_PROPORTIONAL, [], false, []];
            $arguments = [$file, $options, &$callbackData, &$cacheImageFile, &$cacheImageFileTmp, &$arImageSize];
            if (ExecuteModuleEventEx($event, $arguments)) {
                break;
            }
        }
        return ['src' => $cacheImageFile];
    }

    private static function ResizeImageFile(string $source, string $destination, string $thumbnail): bool
    {
        if (!file_exists($source)) {
            return false;
        }
        if (!is_dir(dirname($destination))) {
            mkdir(dirname($destination), 0755, true);
        }
        copy($source, $destination);
        unlink($destination);
        copy($thumbnail, $destination);
        return true;
    }

    /** What Delete does to the files of a row of b_file, and whom it tells. */
    public static function Delete(array $file): void
    {
        $folder = "{$_SERVER['DOCUMENT_ROOT']}/upload/{$file['SUBDIR']}";
        if (file_exists("$folder/{$file['FILE_NAME']}")) {
            unlink("$folder/{$file['FILE_NAME']}");
        }
        self::ResizeImageDelete($file);
        foreach (GetModuleEvents('main', 'OnPhysicalFileDelete', true) as $event) {
            ExecuteModuleEventEx($event, [$file]);
        }
    }

    private static function ResizeImageDelete(array $file): void
    {
        $folder = "{$_SERVER['DOCUMENT_ROOT']}/upload/resize_cache/{$file['SUBDIR']}";
        foreach (glob("$folder/*", GLOB_ONLYDIR) as $size) {
            if (file_exists("$size/{$file['FILE_NAME']}")) {
                unlink("$size/{$file['FILE_NAME']}");
            }
            self::removeFolder($size);
        }
        self::removeFolder($folder);
    }

    private static function removeFolder(string $folder): void
    {
        if (is_dir($folder) && count(scandir($folder)) === 2) {
            rmdir($folder);
        }
    }
}
